"""The one exception that the command turns into a message instead of a traceback."""

from __future__ import annotations


class StackError(Exception):
    """Says which component, what happened to it, and what helps."""
