"""Which of CPython's test modules are run, and whether an interpreter has them at all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

ASYNCIO = "test.test_asyncio"
ALONE = (
    "test.test_context",
    "test.test_coroutines",
    "test.test_asyncgen",
    "test.test_contextlib_async",
    "test.test_external_inspection",
)
SHORT = (
    "test.test_asyncio.test_base_events",
    "test.test_asyncio.test_eager_task_factory",
    "test.test_asyncio.test_futures",
    "test.test_asyncio.test_futures2",
    "test.test_asyncio.test_taskgroups",
    "test.test_asyncio.test_tasks",
)
# The long ones go first, so that the last worker does not end alone with one of them.
SLOW = (
    "test_events",
    "test_tasks",
    "test_ssl",
    "test_external_inspection",
    "test_subprocess",
    "test_sendfile",
)

_PROBE = """
import importlib.util, json, os, platform, sys
def spec(name):
    try:
        return importlib.util.find_spec(name)
    except ImportError:
        return None
package = spec(sys.argv[1])
found = [name for name in sys.argv[2:] if spec(name)]
if package:
    for folder in package.submodule_search_locations:
        found += [f"{sys.argv[1]}.{name.removesuffix('.py')}" for name in os.listdir(folder)
                  if name.startswith("test_") and (name.endswith(".py") or "." not in name)]
facts = [platform.python_version(), platform.python_implementation(), bool(package), sorted(set(found))]
print(json.dumps(facts))
"""


@dataclass(frozen=True, slots=True)
class TestPackage:
    """What an interpreter has of its own test suite.

    Attributes:
        release: `3.14.8`.
        implementation: `CPython`.
        is_there: Whether `test.test_asyncio` can be imported.
        modules: The modules to run, in a stable order.
    """

    release: str
    implementation: str
    is_there: bool
    modules: tuple[str, ...]

    @property
    def how_to_get_it(self) -> str:
        """Name what would bring the missing test package."""
        version = ".".join(self.release.split(".")[:2])
        return (
            f"{self.implementation} {self.release} came without its own tests (test.test_asyncio); on Debian "
            f"install libpython{version}-testsuite, or let `scripts/pythons get {version}` get a whole one"
        )


def look_into(python: str) -> TestPackage:
    """Ask an interpreter which test modules it has."""
    answer = subprocess.run(
        [python, "-I", "-c", _PROBE, ASYNCIO, *ALONE], capture_output=True, text=True, timeout=60, check=True
    )
    release, implementation, is_there, modules = json.loads(answer.stdout)
    return TestPackage(release, implementation, is_there, tuple(modules))


def choose(package: TestPackage, *, short: bool, names: Sequence[str]) -> list[str]:
    """Return the modules to run, the slow ones first.

    Args:
        package: What there is.
        short: Only asyncio's tasks, task groups, base events and futures.
        names: Only these, as `test_tasks` or `test.test_asyncio.test_tasks`.

    Raises:
        LookupError: A name that this interpreter does not have.
    """
    chosen = [name for name in package.modules if not short or name in SHORT]
    if names:
        missing = [name for name in names if not any(_is_meant(name, module) for module in package.modules)]
        if missing:
            raise LookupError(f"{package.release} has no test module {', '.join(missing)}")
        chosen = [module for module in package.modules if any(_is_meant(name, module) for name in names)]
    return sorted(chosen, key=lambda module: module.rpartition(".")[2] not in SLOW)


def _is_meant(name: str, module: str) -> bool:
    """Tell whether a name on the command line means a module: its full name or the end of it."""
    return module == name or module.endswith(f".{name}")
