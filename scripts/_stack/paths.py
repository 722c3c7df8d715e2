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
from collections.abc import Mapping
from pathlib import Path

from _stack.pins import RECIPES, Recipe

TREE = Path(__file__).resolve().parents[2]
CONFIGURATION = TREE / "collector-config"
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
    parts = [repr(recipe), platform.system(), platform.machine()]
    if not recipe.package:  # written by the builder from the manifest
        parts.append(manifest.read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def binary_path(recipe: Recipe, stack: Path, manifest: Path = MANIFEST) -> Path:
    """Return where the binary is once it is built."""
    return stack / "bin" / f"{recipe.name}-{recipe.version}-{build_key(recipe, manifest)}" / recipe.name


def missing_binaries(stack: Path, manifest: Path = MANIFEST) -> list[Recipe]:
    """Return the programs that `build` has yet to build, in its order."""
    return [recipe for recipe in RECIPES if not os.access(binary_path(recipe, stack, manifest), os.X_OK)]
