"""What a cumulative histogram took in between two of its points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def difference(later: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the later buckets without the earlier ones, in the later one's shape; never less than 0.

    An exponential histogram becomes coarser as it grows, never finer: the earlier buckets are put into the
    later ones' scale.
    """
    if "scale" in later and "scale" in earlier:
        coarser = max(0, earlier["scale"] - later["scale"])
        return {
            **later,
            "zero_count": max(0, later["zero_count"] - earlier["zero_count"]),
            **{side: _side(later[side], earlier[side], coarser) for side in ("positive", "negative")},
        }
    if later.get("bounds") is not None and later.get("bounds") == earlier.get("bounds"):
        pairs = zip(later["counts"], earlier["counts"], strict=False)
        return {**later, "counts": [max(0, new - old) for new, old in pairs]}
    return dict(later)


def _side(later: Mapping[str, Any], earlier: Mapping[str, Any], coarser: int) -> dict[str, Any]:
    counts = list(later["counts"])
    for index, held in enumerate(earlier["counts"], earlier["offset"]):
        at = (index >> coarser) - later["offset"]
        if 0 <= at < len(counts):
            counts[at] = max(0, counts[at] - held)
    return {"offset": later["offset"], "counts": counts}
