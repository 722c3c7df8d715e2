"""Upstream's source packages, at the versions that an environment has; each carries its release's tests."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

_VERSIONS = """
import importlib.metadata, json
found = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
print(json.dumps(found))
"""


class UpstreamError(Exception):
    """Something could not be got; says what, and what helps."""


def installed_versions(python: str) -> dict[str, str]:
    """Return the version of every distribution that an interpreter's environment has."""
    done = subprocess.run([python, "-I", "-c", _VERSIONS], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UpstreamError(f"{python} does not start: {done.stderr.strip()}")
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def source_of(python: str, name: str, version: str, cache: Path) -> Path:
    """Return the folder with a release's sources, got with pip the first time.

    Args:
        python: Its pip is used, with whatever configuration that has.
        name: Distribution, `opentelemetry-sdk`.
        version: Release, `1.45.1`.
        cache: Folder that keeps it.

    Raises:
        UpstreamError: pip cannot get it.
    """
    folder = cache / "upstream-sources" / f"{name}-{version}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        words = [
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            name,
            "--dest",
            scratch,
            f"{name}=={version}",
        ]
        done = subprocess.run([python, "-m", "pip", *words], capture_output=True, text=True, check=False)
        archives = list(Path(scratch).glob("*.tar.gz"))
        if done.returncode != 0 or len(archives) != 1:
            raise UpstreamError(
                f"pip cannot get the sources of {name} {version}: {done.stderr.strip()[-1000:]}"
            )
        unpacked = Path(scratch, "unpacked")
        with tarfile.open(archives[0]) as archive:
            # `filter` came with a patch release of each Python.
            archive.extractall(unpacked, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        (root,) = unpacked.iterdir()
        try:
            root.rename(folder)  # in one move: half a source never lies there under its final name
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def reference_environment(python: str, versions: dict[str, str], cache: Path) -> str:
    """Return the interpreter of an environment that has what `python` has of OpenTelemetry, without us.

    Kept in the cache under the names of what is in it, so a new release of anything makes a new one.

    Raises:
        UpstreamError: It cannot be made.
    """
    kept = ("pytest", "pluggy", "asgiref", "wrapt")
    pins = sorted(f"{n}=={v}" for n, v in versions.items() if n.startswith("opentelemetry-") or n in kept)
    tag = subprocess.run(
        [python, "-I", "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    folder = cache / "upstream-reference" / f"{tag}-{_digest(pins)}"
    executable, marker = folder / "bin" / "python", folder / "ready"
    if marker.exists():
        return str(executable)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for words in (
        [python, "-m", "venv", str(folder)],
        [str(executable), "-m", "pip", "install", "--quiet", "--upgrade", "pip"],
        [str(executable), "-m", "pip", "install", "--quiet", *pins],
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UpstreamError(
                f"`{' '.join(words[:5])} …` failed: {(done.stderr or done.stdout).strip()[-1000:]}"
            )
    marker.touch()
    return str(executable)


def _digest(pins: list[str]) -> str:
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()[:12]
