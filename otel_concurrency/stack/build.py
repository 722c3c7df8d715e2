"""From the Go module proxy to binaries in the cache.

Each step leaves something that the next run finds (downloaded modules, compiled packages, a finished binary),
so an interrupted build goes on where it stopped. A finished binary appears by one rename; whatever is at its
path is whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from otel_concurrency.stack import go as go_command
from otel_concurrency.stack.errors import StackError
from otel_concurrency.stack.go import COMPILERS, Go
from otel_concurrency.stack.paths import MANIFEST, binary_path, missing_binaries
from otel_concurrency.stack.pins import Recipe


def build(
    stack: Path,
    tell: Callable[[str], None],
    *,
    only: Collection[str] | None = None,
    keep_caches: bool = False,
) -> None:
    """Build what is missing; return at once when nothing is.

    Args:
        stack: The stack's folder in the cache.
        tell: Receives progress.
        only: Names of programs; without it all of them.
        keep_caches: Keep Go's caches (5 GiB) after the last binary, for a faster next version.

    Raises:
        StackError: No suitable Go, or a step failed.
    """
    work = stack / "work"
    work.mkdir(parents=True, exist_ok=True)
    with _only_one_builder(stack / "build.lock", tell):
        if missing := missing_binaries(stack, only=only):
            go = go_command.find_go(work, tell)
            for number, recipe in enumerate(missing, start=1):
                tell(f"{recipe.name} {recipe.version} ({number} of {len(missing)}) with {go.version}")
                compiled = _build_module(recipe, go) if recipe.package else _build_collector(recipe, go)
                _put_in_place(recipe, compiled, binary_path(recipe, stack), go)
        if not keep_caches:
            shutil.rmtree(work, ignore_errors=True)
    tell(f"everything is built: {stack / 'bin'}")


def _build_collector(recipe: Recipe, go: Go) -> Path:
    """Let the collector's builder write a module from our manifest, and compile that."""
    tools, log = {"GOBIN": str(go.work / "tools")}, go.work / "logs" / f"{recipe.name}.log"
    builder = f"{recipe.module}@v{recipe.module_version}"
    what = f"{recipe.name}: its builder"
    go.run(what, "install", "-trimpath", builder, cwd=go.work, log=log, environ=tools)
    go_command.run_niced(
        f"{recipe.name}: writing the module of {MANIFEST.name}",
        [f"{tools['GOBIN']}/builder", "--skip-compilation", f"--config={MANIFEST}"],
        go.work,
        log,
        go.environ(),
        go.tell,
    )
    return _compile(recipe, go, go.work / recipe.name, ".", log)


def _build_module(recipe: Recipe, go: Go) -> Path:
    """Compile a released module as its own main module.

    `go install module@version` refuses a module with replace lines. As the main module of a build those lines
    count, and so do its own go.sum and thus exactly the dependencies that were released.
    """
    log = go.work / "logs" / f"{recipe.name}.log"
    module = f"{recipe.module}@v{recipe.module_version}"
    go.run(f"{recipe.name}: downloading {module}", "mod", "download", module, cwd=_empty_folder(go), log=log)
    downloaded = go.work / "go-mod" / Path(*recipe.module.split("/")[:-1]) / module.rpartition("/")[2]
    source = go.work / recipe.name
    if not source.exists():
        unfinished = source.with_suffix(".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(downloaded, unfinished, symlinks=True)
        unfinished.rename(source)
    for replaced in recipe.dropped:
        what = f"{recipe.name}: taking the released {replaced}"
        go.run(what, "mod", "edit", f"-dropreplace={replaced}", cwd=source, log=log)
    return _compile(recipe, go, source, recipe.package, log)


def _compile(recipe: Recipe, go: Go, source: Path, package: str, log: Path) -> Path:
    compiled = go.work / "compiled" / recipe.name
    # A module that takes the place of a folder is not in go.sum yet; Go's checksum database knows it.
    mode = "-mod=mod" if recipe.dropped else "-mod=readonly"
    options = ["-trimpath", mode, f"-tags={recipe.tags}", f"-ldflags={recipe.ldflags}"]
    # Modules are downloaded as the compiler meets them: go.mod lists many that this package never imports.
    what = f"{recipe.name}: downloading and compiling"
    go.run(what, "build", "-p", str(COMPILERS), *options, "-o", str(compiled), package, cwd=source, log=log)
    return compiled


def _put_in_place(recipe: Recipe, compiled: Path, binary: Path, go: Go) -> None:
    binary.parent.mkdir(parents=True, exist_ok=True)
    stamp = {"name": recipe.name, "version": recipe.version, "module": recipe.module, "go": go.version}
    stamp["module_version"] = recipe.module_version
    (binary.parent / "build.json").write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    arriving = binary.with_suffix(".arriving")
    shutil.move(compiled, arriving)
    os.replace(arriving, binary)


def _empty_folder(go: Go) -> Path:
    """Return a folder without go.mod, where `go mod download` takes a version from its argument."""
    folder = go.work / "nowhere"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _only_one_builder(lock: Path, tell: Callable[[str], None]) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another build is under way; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise StackError(f"cannot lock {lock}: {error}") from error
        yield
