"""Where the stack keeps things: one cache folder outside the tree, and one state folder a running stack.

<cache>/stack/bin/otelcol-0.164.0-<key>/otelcol    what `build` leaves behind
<cache>/stack/work/                                 sources and Go's caches while a build goes on
<cache>/stack/run/                                  default state folder of `up`
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path

from otel_concurrency.stack.pins import RECIPES, Recipe

# A wheel carries the folder inside of the package; in a checkout it stands beside.
_PACKAGE = Path(__file__).resolve().parents[1]
_CARRIED = _PACKAGE / "collector-config"
CONFIGURATION = _CARRIED if _CARRIED.is_dir() else _PACKAGE.parent / "collector-config"
MANIFEST = CONFIGURATION / "builder.yaml"

CACHE_VARIABLE = "OTEL_CONCURRENCY_CACHE"


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the project's cache folder, which may not exist yet.

    `OTEL_CONCURRENCY_CACHE` wins; else `otel-concurrency` below `XDG_CACHE_HOME` or `~/.cache`.
    """
    if chosen := environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().resolve()
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "otel-concurrency"


def stack_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the stack's part of the cache folder."""
    return cache_folder(environ) / "stack"


def build_key(recipe: Recipe, manifest: Path = MANIFEST) -> str:
    """Return a short hash of everything that decides what the binary is.

    Two checkouts with different pins can then share one cache, and an edited manifest is a new build.
    """
    parts = [repr(recipe), platform.system(), platform.machine(), *recipe.dropped]
    if not recipe.package:  # written by the builder from the manifest
        parts.append(_without_comments(manifest.read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def binary_path(recipe: Recipe, stack: Path, manifest: Path = MANIFEST) -> Path:
    """Return where the binary is once it is built."""
    return stack / "bin" / f"{recipe.name}-{recipe.version}-{build_key(recipe, manifest)}" / recipe.name


def missing_binaries(
    stack: Path, manifest: Path = MANIFEST, *, only: Collection[str] | None = None
) -> list[Recipe]:
    """Return the programs that `build` has yet to build, in its order; with `only`, of those names."""
    wanted = [recipe for recipe in RECIPES if only is None or recipe.name in only]
    return [recipe for recipe in wanted if not os.access(binary_path(recipe, stack, manifest), os.X_OK)]


def _without_comments(manifest: str) -> str:
    """Return the lines that the collector's builder reads."""
    lines = [line.partition(" #")[0].rstrip() for line in manifest.splitlines()]
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
