"""Where the tree is that these tests belong to."""

from __future__ import annotations

from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
