"""A Debian root in the cache folder: what it says about itself, what it borrows, how to enter it.

Leans on Linux mount namespaces, reached through ctypes because `os.unshare` came with Python 3.12.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent.parent
MARKER = "etc/otel-concurrency.json"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Folders that belong to the root's own suite; everything else a command may need is bound from the machine.
SYSTEM_FOLDERS = {"bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "var"}
BOUND_FOLDERS = ("/dev", "/proc", "/sys", "/tmp", "/home", "/root", "/opt", "/srv", "/mnt")
BOUND_VARIABLES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "OTEL_CONCURRENCY_CACHE")
MACHINE_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf", "/etc/resolv.conf", "/etc/hosts")
# Variables that name a certificate bundle, wherever the machine keeps it.
CERTIFICATE_VARIABLES = (
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
EXIT_CANNOT_ENTER = 126

PR_SET_PDEATHSIG = 1
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18


class SetupError(Exception):
    """What stands in the way, and what helps; the scripts print it without a traceback."""


def say(line: str) -> None:
    """Tell the person what happens; standard output belongs to the results."""
    print(f"pythons: {line}", file=sys.stderr, flush=True)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for what is got once, outside the tree."""
    if chosen := environ.get("OTEL_CONCURRENCY_CACHE"):
        return Path(chosen).absolute()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-concurrency"


def made_roots(cache: Path) -> list[Path]:
    """Return the finished roots; one without its marker is half made and does not count."""
    return sorted(path for path in cache.glob("debian-*") if read_marker(path))


def read_marker(root: Path) -> dict[str, dict[str, str]]:
    """Return what a finished root says about itself, `{}` for one that was left half made."""
    try:
        marker = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) and isinstance(marker.get("versions"), dict) else {}


def write_marker(root: Path, codename: str, versions: Mapping[str, str]) -> None:
    """Declare a root finished; the last step of making it, in one move so that no reader sees half a file."""
    fresh = root / f"{MARKER}.fresh"
    fresh.write_text(json.dumps({"suite": {"codename": codename}, "versions": versions}, indent=2) + "\n")
    fresh.replace(root / MARKER)


def copy_machine_files(root: Path, environ: Mapping[str, str]) -> None:
    """Give the root the machine's certificates, pip configuration and name resolution.

    Cheap when nothing changed; files outside the system folders need no copy, they are visible as they are.
    """
    names = {*MACHINE_FILES, *(environ[name] for name in CERTIFICATE_VARIABLES if environ.get(name))}
    for name in sorted(names):
        source = Path(name)
        if not source.is_file() or source.parts[1] not in SYSTEM_FOLDERS:
            continue
        target = root / source.relative_to("/")
        if not target.is_symlink() and target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(
            f"{target.name}.{os.getpid()}"
        )  # replaced in one move: others may be reading it
        shutil.copyfile(source, fresh)
        fresh.replace(target)


def run_in(root: Path, words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command inside a root and wait; `options` as `subprocess.run` takes them.

    Raises:
        SetupError: This machine lets nobody enter the root.
    """
    done = subprocess.run(words, preexec_fn=lambda: _enter_or_exit(root), text=True, check=False, **options)
    if done.returncode == EXIT_CANNOT_ENTER:
        raise SetupError((done.stderr or "").removeprefix("pythons: ").strip() or f"cannot enter {root}")
    return done


def _enter_or_exit(root: Path) -> None:
    die_with_parent()
    # `subprocess` swallows what preexec_fn raises, and the reason is what the person needs.
    try:
        enter(root)
    except SetupError as error:
        os.write(2, f"pythons: {error}\n".encode())  # the child's own descriptor, whatever sys.stderr is here
        os._exit(EXIT_CANNOT_ENTER)


def die_with_parent() -> None:
    """End this process when its parent ends, so that nobody writes into a root that is being remade."""
    _libc("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)


def enter(root: Path) -> None:
    """Make `root` the root folder of this process, with the machine's own folders bound into it.

    The mounts live in a namespace of this process and vanish with it, however it ends, so nothing is left to
    unmount and removing a root can never reach the machine's files.
    """
    _unshare_mounts()
    for path in bound_paths(root):
        target = root / path.relative_to("/")
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"cannot make {target}: {error.strerror}") from None
        _mount(str(path), str(target), MS_BIND | MS_REC)
    os.chroot(root)
    os.chdir("/")


def bound_paths(root: Path) -> list[Path]:
    """Return the folders to show inside a root: devices, home, /tmp, the project, where we are, the cache."""
    named = [os.environ.get(name, "") for name in BOUND_VARIABLES]
    paths: list[Path] = []
    for name in (*BOUND_FOLDERS, str(PROJECT), os.getcwd(), str(root.parent), *named):
        path = Path(name)
        if not name.startswith("/") or not path.is_dir() or path == Path("/"):
            continue
        # The whole top folder where it is not the suite's own: what lies beside the tree is often needed too.
        paths.append(path if path.parts[1] in SYSTEM_FOLDERS else Path("/", path.parts[1]))
    return list(dict.fromkeys(paths))


def _unshare_mounts() -> None:
    """Give this process its own mount table: as root directly, else through a user namespace."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 or _libc("unshare", CLONE_NEWNS) != 0:
        if _libc("unshare", CLONE_NEWUSER | CLONE_NEWNS) != 0:
            raise SetupError(
                "this machine allows no mount namespace; start the container with the SYS_ADMIN capability, "
                "or install the interpreter itself and put it on PATH"
            )
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _mount("none", "/", MS_REC | MS_PRIVATE)


def _mount(source: str, target: str, flags: int) -> None:
    if _libc("mount", source.encode(), target.encode(), None, ctypes.c_ulong(flags), None) != 0:
        raise SetupError(f"cannot show {source} at {target}: {os.strerror(ctypes.get_errno())}")


def _libc(function: str, *arguments: object) -> int:
    result: int = getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments)
    return result
