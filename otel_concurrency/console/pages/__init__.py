"""The console's pages: what was received, in a browser.

A page is a function from a request to blocks, which are markup and charts; `view.py` draws them with NiceGUI,
and `application` is all of them over a store.
"""

from __future__ import annotations

from otel_concurrency.console.pages.application import application

__all__ = ["application"]
