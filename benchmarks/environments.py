"""Virtual environments as a user would have them: the bare service, ours on top, upstream's default on top.

They live in the cache folder, outside the tree, and are made once; ours is installed anew when the tree
changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SERVICE_PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "aiohttp")
UPSTREAM_PACKAGES = (
    "opentelemetry-distro",
    "opentelemetry-exporter-otlp",
    "opentelemetry-instrumentation-aiohttp-client",
    "opentelemetry-instrumentation-asyncio",
    "opentelemetry-instrumentation-exceptions",
    "opentelemetry-instrumentation-fastapi",
    "opentelemetry-instrumentation-logging",
    "opentelemetry-instrumentation-threading",
)
"""What `opentelemetry-bootstrap` would pick for this service, less what it never calls."""


class InstallError(Exception):
    """A variant's environment cannot be had on this interpreter, or without a package index."""


def cache_folder() -> Path:
    """Return where the environments live. Source: `OTEL_CONCURRENCY_CACHE`, else the XDG cache folder."""
    named = os.environ.get("OTEL_CONCURRENCY_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-concurrency"


def environment(variant: str) -> Path:
    """Return the `bin` folder of a variant's environment, made or brought up to date first.

    Args:
        variant: `bare`, `ours` or `upstream`.

    Raises:
        InstallError: pip failed; its output is in the message.
    """
    folder = cache_folder() / "benchmarks" / (sys.implementation.cache_tag or "python") / variant
    constraints = constraint_lines()
    wanted = digest(variant, constraints)
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return folder / "bin"
    print(f"request: installing {variant}", file=sys.stderr, flush=True)
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    (folder / "constraints.txt").write_text("\n".join(constraints) + "\n", encoding="utf-8")
    pip_install(folder, *SERVICE_PACKAGES, *(UPSTREAM_PACKAGES if variant == "upstream" else ()))
    if variant == "ours":
        with tempfile.TemporaryDirectory() as copy:
            # Built from a copy: a build folder in the tree would outlive this run.
            copy_sources(Path(copy))
            pip_install(folder, copy)
            pip_install(folder, "--force-reinstall", "--no-deps", copy)
    stamp.write_text(wanted, encoding="utf-8")
    return folder / "bin"


def peer_environment(package: str) -> Path:
    """Return the `bin` folder of an environment with one peer and what it needs, made once.

    Raises:
        InstallError: pip failed; its output is in the message.
    """
    folder = cache_folder() / "benchmarks" / (sys.implementation.cache_tag or "python") / f"peer-{package}"
    stamp = folder / "installed"
    if stamp.exists():
        return folder / "bin"
    print(f"pools: installing {package}", file=sys.stderr, flush=True)
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    (folder / "constraints.txt").touch()
    pip_install(folder, package)
    stamp.touch()
    return folder / "bin"


def pip_install(folder: Path, *what: str) -> None:
    command = [
        *(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--constraint", str(folder / "constraints.txt"), *what),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(f"pip could not install {' '.join(what)}:\n{done.stderr.strip()[-2000:]}")


def constraint_lines() -> list[str]:
    """Pin every package to the version that is installed here, so that all variants run the same ones."""
    ours = "otel-concurrency"
    return sorted(
        f"{distribution.name}=={distribution.version}"
        for distribution in metadata.distributions()
        if distribution.name not in (ours, "pip", "setuptools")
    )


def source_files() -> list[Path]:
    """Return what our package is built from."""
    package = sorted(
        path
        for folder in ("otel_concurrency", "examples", "collector-config")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".so", ".pyc")
    )
    return [ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "README.md", *package]


def copy_sources(target: Path) -> None:
    for path in source_files():
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)


def digest(variant: str, constraints: list[str]) -> str:
    """Return what changes whenever an environment has to be installed anew."""
    content = hashlib.sha256("\n".join([sys.version, *SERVICE_PACKAGES, *constraints]).encode())
    if variant == "upstream":
        content.update("\n".join(UPSTREAM_PACKAGES).encode())
    if variant == "ours":
        for path in source_files():
            content.update(path.read_bytes())
    return content.hexdigest()
