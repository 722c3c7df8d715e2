"""Which test modules are run, CPython's and libraries', and whether an interpreter has them at all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from _conformance.libraries import LIBRARIES

ASYNCIO = "test.test_asyncio"
# A package stands for its test modules. Run in this order: what is over soon comes first.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "asyncio": (
        ASYNCIO,
        "test.test_context",
        "test.test_coroutines",
        "test.test_asyncgen",
        "test.test_contextlib_async",
        "test.test_external_inspection",
    ),
    # Libraries' own.
    "locks": ("anyio", "trio"),
    "pools": ("sqlalchemy", "asyncpg", "redis", "aiohttp", "httpcore"),
    "threads": (
        "test.test_thread",
        "test.test_threading_local",
        "test.test_threadedtempfile",
        "test.test_threadsignals",
        "test.test_sched",
        "test.test_contextlib",
        "test.test_queue",
        "test.test_threading",
        "test.test_concurrent_futures",
    ),
    "processes": (
        "test.test_popen",
        "test.test_fork1",
        "test.test_wait3",
        "test.test_wait4",
        "test.test_atexit",
        "test.test_multiprocessing_main_handling",
        "test.test_signal",
        "test.test_subprocess",
        "test.test_multiprocessing_fork",
        "test.test_multiprocessing_spawn",
        "test.test_multiprocessing_forkserver",
    ),
}
# Not missed where CPython did not have it yet.
SINCE = {"test.test_external_inspection": (3, 14)}
SHORT = (
    "test.test_asyncio.test_base_events",
    "test.test_asyncio.test_eager_task_factory",
    "test.test_asyncio.test_futures",
    "test.test_asyncio.test_futures2",
    "test.test_asyncio.test_taskgroups",
    "test.test_asyncio.test_tasks",
)
# Of asyncio's, the long ones go first, so that the last worker does not end alone with one of them.
SLOW = (
    "test_events",
    "test_tasks",
    "test_ssl",
    "test_external_inspection",
    "test_subprocess",
    "test_sendfile",
)
# Seconds that a run of a module may take; the first beginning that fits counts. Every child of a test is
# instrumented too, and takes half a second to start.
TIME_LIMITS_S = {
    "test.test_multiprocessing_main_handling": 600,
    "test.test_multiprocessing": 2400,
    "test.test_subprocess": 2400,
    "test.test_concurrent_futures": 1200,
    "test.test_threading": 600,
    "": 300,
}

_PROBE = """
import importlib.util, json, os, platform, sys
def spec(name):
    try:
        return importlib.util.find_spec(name)
    except ImportError:
        return None
def modules(name):
    found = spec(name)
    if found is None or found.submodule_search_locations is None:
        return [name] if found else []
    return [f"{name}.{each.removesuffix('.py')}" for folder in found.submodule_search_locations
            for each in sorted(os.listdir(folder))
            if each.startswith("test_") and (each.endswith(".py") or "." not in each)]
found = [module for name in sys.argv[1:] for module in modules(name)]
facts = [platform.python_version(), platform.python_implementation(), spec(sys.argv[1]) is not None, found]
print(json.dumps(facts))
"""


@dataclass(frozen=True, slots=True)
class TestPackage:
    """What an interpreter has of its own test suite, and the tests of libraries.

    Attributes:
        release: `3.14.8`.
        implementation: `CPython`.
        is_there: Whether `test.test_asyncio` can be imported.
        modules: The modules to run, in the order of `GROUPS`.
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

    def missing(self, groups: Sequence[str] = ()) -> list[str]:
        """Return what it came without, of these groups or of all, where CPython of this version has it."""
        version = tuple(int(part) for part in self.release.split(".")[:2])
        return [
            name
            for group in groups or GROUPS
            for name in GROUPS[group]
            if SINCE.get(name, version) <= version and not any(_is_part(each, name) for each in self.modules)
        ]


def look_into(python: str) -> TestPackage:
    """Ask an interpreter which test modules it has."""
    own = [name for group in GROUPS.values() for name in group if name.startswith("test.")]
    command = [python, "-I", "-c", _PROBE, *own]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    release, implementation, is_there, modules = json.loads(answer.stdout)
    return TestPackage(release, implementation, is_there, (*modules, *LIBRARIES))


def choose(
    package: TestPackage, *, short: bool = False, groups: Sequence[str] = (), names: Sequence[str] = ()
) -> list[str]:
    """Return the modules to run, in the order in which to run them.

    Args:
        package: What there is.
        short: Only asyncio's tasks, task groups, base events and futures.
        groups: Only these of `GROUPS`.
        names: Only these, as `test_tasks` or `test.test_asyncio.test_tasks`; a package means all its modules.

    Raises:
        LookupError: A name that this interpreter does not have.
    """
    chosen = [
        module
        for module in package.modules
        if (not short or module in SHORT) and (not groups or group_of(module) in groups)
    ]
    if names:
        missing = [name for name in names if not any(_is_meant(name, module) for module in package.modules)]
        if missing:
            raise LookupError(f"{package.release} has no test module {', '.join(missing)}")
        chosen = [module for module in package.modules if any(_is_meant(name, module) for name in names)]
    return sorted(chosen, key=_place)


def group_of(module: str) -> str:
    """Return the name of the group that a module belongs to."""
    return next(group for group, names in GROUPS.items() if any(_is_part(module, name) for name in names))


def time_limit_s(module: str) -> float:
    """Return the seconds that a run of a module may take."""
    return next(limit for beginning, limit in TIME_LIMITS_S.items() if module.startswith(beginning))


def _place(module: str) -> tuple[int, bool]:
    group = group_of(module)
    return [*GROUPS].index(group), group == "asyncio" and module.rpartition(".")[2] not in SLOW


def _is_part(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _is_meant(name: str, module: str) -> bool:
    """Tell whether a name on the command line means a module: its name, the end of it, its package."""
    return f".{name}." in f".{module}."
