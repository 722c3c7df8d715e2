"""Interpreters from a newer Debian suite: which suite has them, and how they come into the cache folder.

Leans on apt's own configuration for the mirror, its proxies and its certificates, and on debootstrap.
"""

from __future__ import annotations

import fcntl
import lzma
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from _pythons.root import (
    MARKER,
    SYSTEM_PATH,
    SetupError,
    copy_machine_files,
    die_with_parent,
    read_marker,
    run_in,
    say,
    write_marker,
)

# From calm to lively: the first suite that carries an interpreter with its test suite is taken.
SUITES = ("stable", "testing", "unstable")
# Compilers for the extension, and for a dependency that has no wheel yet.
BUILD_PACKAGES = ("ca-certificates", "gcc", "g++", "make", "libc6-dev")
DEBOOTSTRAP_SCRIPTS = Path("/usr/share/debootstrap/scripts")


def packages_of(version: str) -> tuple[str, ...]:
    """Name the Debian packages that make one interpreter whole."""
    return (
        f"python{version}",
        f"python{version}-venv",
        f"python{version}-dev",
        f"libpython{version}-testsuite",
    )


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the cache for one maker at a time; the lock dies with its process."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "pythons.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"another `scripts/pythons get` works in {cache}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def machine_mirror() -> str:
    """Return the Debian mirror this machine installs from, as its apt configuration has it."""
    if shutil.which("apt-get") is None:
        raise SetupError("this machine has no apt-get; getting an interpreter needs Debian")
    wanted = "$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)"
    for attempt in range(2):
        listed = _output("apt-get", "indextargets", "--format", wanted, "Created-By: Packages").splitlines()
        for origin, component, codename, uri in (line.split() for line in listed if len(line.split()) == 4):
            if (
                origin == "Debian"
                and component == "main"
                and not codename.endswith(("-security", "-updates"))
            ):
                return uri.rstrip("/")
        if attempt == 0:
            # Nothing is listed where the index was never fetched, as in a fresh container.
            say("apt-get update (this machine has no package index yet)")
            subprocess.run(["apt-get", "-q", "update"], stdout=sys.stderr, check=False)
    raise SetupError("apt knows no Debian mirror here, or cannot reach it; name one with --mirror")


def choose_suites(mirror: str, suites: Sequence[str], versions: Sequence[str]) -> dict[str, list[str]]:
    """Return {codename: versions}, every version in the calmest suite that has all its packages."""
    chosen: dict[str, list[str]] = {}
    missing = list(versions)
    for suite in suites:
        if not missing:
            break
        carried = suite_packages(mirror, suite)
        here = [version for version in missing if carried.issuperset(packages_of(version))]
        if here:
            chosen[suite_codename(mirror, suite)] = here
            missing = [version for version in missing if version not in here]
    if missing:
        names = ", ".join(packages_of(missing[0]))
        raise SetupError(f"none of the suites {', '.join(suites)} on {mirror} has all of {names}")
    return chosen


def suite_codename(mirror: str, suite: str) -> str:
    """Return the name behind `testing`: a root is named by what it holds, not by what that is called now."""
    found = re.search(r"^Codename: (\S+)$", _fetch(f"{mirror}/dists/{suite}/Release").decode(), re.MULTILINE)
    if found is None:
        raise SetupError(f"{mirror} has no readable Release file for {suite}")
    return found.group(1)


def suite_packages(mirror: str, suite: str) -> set[str]:
    """Return the names of all packages in a suite's main component."""
    architecture = _output("dpkg", "--print-architecture").strip()
    index = lzma.decompress(_fetch(f"{mirror}/dists/{suite}/main/binary-{architecture}/Packages.xz"))
    return set(re.findall(r"^Package: (\S+)$", index.decode(), re.MULTILINE))


def fill_root(
    root: Path, codename: str, mirror: str, versions: Sequence[str], environ: Mapping[str, str]
) -> None:
    """Put interpreters into a root, made anew unless a finished one is there."""
    started = time.monotonic()
    made = read_marker(root)
    if not made:
        if root.exists():
            say(f"{root} was left half made; removing it")
            shutil.rmtree(root)
        _unpack_suite(root, codename, mirror, environ)
    # Without its marker a root counts as half made: should the next lines be interrupted, it is remade.
    (root / MARKER).unlink(missing_ok=True)
    _copy_apt_settings(root)
    copy_machine_files(root, environ)
    names = [name for version in versions for name in packages_of(version)]
    say(f"installing {' '.join(names)} into {root}")
    log = root.parent / f"install-{codename}.log"
    log.unlink(missing_ok=True)
    _run_logged(root, ["apt-get", "-q", "update"], environ, log)
    install = ["apt-get", "-qy", "--no-install-recommends", "install", *BUILD_PACKAGES, *names]
    _run_logged(root, install, environ, log)
    _run_logged(root, ["apt-get", "clean"], environ, log)
    copy_machine_files(root, environ)  # again: the package ca-certificates has written a bundle of its own

    releases = dict(made.get("versions", {}))
    for version in versions:
        asked = run_in(root, [f"python{version}", "-V"], env={"PATH": SYSTEM_PATH}, capture_output=True)
        if asked.returncode != 0:
            raise SetupError(f"python{version} in {root} does not start: {asked.stderr.strip()}")
        releases[version] = asked.stdout.split()[-1]
    write_marker(root, codename, releases)
    say(f"{root} has Python {', '.join(releases.values())}; that took {time.monotonic() - started:.0f} s")


def _unpack_suite(root: Path, codename: str, mirror: str, environ: Mapping[str, str]) -> None:
    """Run debootstrap, installed first where it is missing."""
    path = f"{environ.get('PATH', '')}:{SYSTEM_PATH}"
    environment = {**environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": path}
    if shutil.which("debootstrap", path=path) is None:
        _install_debootstrap(environment)
    environment.update({f"{scheme}_proxy": proxy for scheme, proxy in _apt_proxies().items()})
    say(f"unpacking Debian {codename} into {root} (about a minute)")
    command = ["debootstrap", "--variant=minbase", codename, str(root), mirror]
    if not (DEBOOTSTRAP_SCRIPTS / codename).exists():
        command.append(str(DEBOOTSTRAP_SCRIPTS / "sid"))  # a suite younger than this debootstrap
    log = root.parent / f"debootstrap-{codename}.log"
    with log.open("w") as output:
        done = subprocess.run(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
            check=False,
        )
    if done.returncode != 0:
        raise SetupError(f"debootstrap of {codename} failed with {done.returncode}; {_tail(log)}")


def _install_debootstrap(environment: Mapping[str, str]) -> None:
    say("installing the Debian package debootstrap on this machine (apt-get install debootstrap)")
    install = ["apt-get", "-qqy", "--no-install-recommends", "install", "debootstrap"]
    for command in (install, ["apt-get", "-q", "update"], install):
        done = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
        if done.returncode == 0 and command is install:
            return
    raise SetupError("debootstrap cannot be installed; is there network? apt-get said why, above")


def _run_logged(root: Path, words: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
    """Run a set-up command in a root; its output goes to a log, its end to the person when it fails."""
    environment = {**environ, "PATH": SYSTEM_PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    with log.open("a") as output:
        done = run_in(
            root, words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode != 0:
        raise SetupError(f"`{' '.join(words[:3])} …` failed in {root} with {done.returncode}; {_tail(log)}")


def _copy_apt_settings(root: Path) -> None:
    """Give the root what the machine's apt needs to reach its mirror: proxies, certificates, retries."""
    lines = _output("apt-config", "dump", "Acquire").splitlines()
    unrelated = ("Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::cdrom")
    kept = [line for line in lines if not line.startswith(unrelated)]
    (root / "etc/apt/apt.conf.d/99machine").write_text("\n".join(kept) + "\n")


def _apt_proxies() -> dict[str, str]:
    """Return apt's own proxies, `{}` when it has none and the environment decides."""
    proxies: dict[str, str] = {}
    for scheme in ("http", "https"):
        found = re.match(
            r"VALUE='(.+)'", _output("apt-config", "shell", "VALUE", f"Acquire::{scheme}::Proxy")
        )
        if found and found.group(1) != "DIRECT":
            proxies[scheme] = found.group(1)
    return proxies


def _fetch(url: str) -> bytes:
    handlers = [urllib.request.ProxyHandler(proxies)] if (proxies := _apt_proxies()) else []
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=60) as answer:
            body: bytes = answer.read()
    except (OSError, urllib.error.URLError) as error:
        raise SetupError(f"cannot read {url}: {error}; getting an interpreter needs the network") from None
    return body


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise SetupError(
            f"cannot run {command[0]}: {error.strerror}; getting an interpreter needs Debian"
        ) from None


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-5:]
    return "\n  ".join((f"all of it is in {log}, which ends with", *lines))
