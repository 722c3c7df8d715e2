"""What became of the tests on two sides, and whether that is the same.

A module's outcomes are a plain mapping, test id to outcome. A test that differs once is not yet a
difference: asyncio's tests watch the clock, and two of them run at a time. Its module is run again, alone,
and only what differs there too counts; what does not is flaky, and told. What differs because there is one
more thread, whosever, or because of what any distro imports, does not count either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Outcomes = Mapping[str, str]
ABSENT = "absent"  # the other side ran it, this one did not
NOT_REACHED = "not reached"  # a crash or a hang came first
FINISHED = "finished"  # what stands against an unfinished run
IN_OR_AFTER = "in or after"
ANY_THREAD = "as with any idle thread"
IMPORTS = "as with what OpenTelemetry imports"
UNFINISHED = "<unfinished>"  # stands for the tests that a crash or a hang has kept from running


@dataclass(frozen=True, slots=True)
class ModuleRun:
    """One run of one module on one side.

    Attributes:
        outcomes: Test id to outcome; a crash or a hang is the outcome of a test named after the module.
        details: Test id to traceback or skip reason.
        seconds: How long it took.
        is_patched: Whether the process found `create_task` patched; None if it did not live to tell.
        ours: The places in a library that had functions of ours at the end; None if nobody looked.
    """

    outcomes: Outcomes
    details: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    is_patched: bool | None = None
    ours: tuple[str, ...] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the module ran to its end."""
        return not any(test.endswith(UNFINISHED) for test in self.outcomes)

    def count(self, *outcomes: str) -> int:
        """Count the tests with one of these outcomes."""
        return sum(1 for outcome in self.outcomes.values() if outcome in outcomes)


@dataclass(frozen=True, slots=True)
class Difference:
    """A test that does not come out the same on both sides.

    Attributes:
        test: Its id.
        bare: Every outcome seen bare, in the order of the runs.
        other: Every outcome seen on the other side.
        is_flaky: Run alone, both sides came out the same.
        detail: The other side's last traceback or reason, else the bare side's.
        excuse: What else makes bare Python come out like the other side, where it is not what we do.
    """

    test: str
    bare: tuple[str, ...]
    other: tuple[str, ...]
    is_flaky: bool
    detail: str
    excuse: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is held against the other side."""
        return not self.is_flaky and not self.excuse


def read_run(module: str, path: Path, exit_code: int | None, output: str, seconds: float) -> ModuleRun:
    """Read the lines that child.py or pytest_child.py wrote.

    Args:
        module: What was run.
        path: The file with the lines.
        exit_code: How the process ended; None if its time ran out.
        output: What it printed; quoted when it did not finish.
        seconds: How long it took.
    """
    outcomes: dict[str, str] = {}
    details: dict[str, str] = {}
    running, is_finished, is_patched, ours = "", False, None, None
    for record in _records(path):
        if "started" in record:
            running = record["started"]
        elif "test" in record:
            outcomes[record["test"]] = record["outcome"]
            details[record["test"]] = record["detail"]
        elif "is_patched" in record:
            is_patched = record["is_patched"]
        else:
            is_finished = True
            ours = tuple(record["ours"]) if "ours" in record else None
    if not is_finished:
        how = "timeout" if exit_code is None else f"crash (exit code {exit_code})"
        outcomes[f"{module}.{UNFINISHED}"] = how
        details[f"{module}.{UNFINISHED}"] = f"{IN_OR_AFTER} {running or 'loading'}\n{output[-4000:]}"
    return ModuleRun(outcomes, details, seconds, is_patched, ours)


def read_progress(path: Path) -> tuple[int, str]:
    """Return how many tests of a run are over, and the last one that began."""
    records = list(_records(path))
    begun = [record["started"] for record in records if "started" in record]
    return sum("test" in record for record in records), begun[-1] if begun else "loading"


def differing_tests(bare: Outcomes, other: Outcomes) -> list[str]:
    """Return the ids whose outcome is not the same, in a stable order."""
    return sorted(test for test in bare.keys() | other.keys() if bare.get(test) != other.get(test))


def judge(bare: Sequence[ModuleRun], other: Sequence[ModuleRun]) -> list[Difference]:
    """Hold all runs of a module against each other; the first of each ran in company, the rest alone.

    A test differs if an outcome that it had alone on one side was never seen on the other side at all. One
    that differed only in company, or fails now and then on both sides, is flaky. A crash is never excused by
    company; the tests that a crash or a hang kept from running are not held against anybody.

    Returns:
        Every test that differed in any run, flaky ones included.
    """
    suspects: set[str] = set()
    for one, two in zip(bare, other, strict=False):
        suspects.update(differing_tests(one.outcomes, two.outcomes))
    found: list[Difference] = []
    for test in sorted(suspects):
        bare_seen, other_seen = _seen(test, bare), _seen(test, other)
        if all(
            one == two or NOT_REACHED in (one, two) for one, two in zip(bare_seen, other_seen, strict=False)
        ):
            continue
        detail = _detail(test, (*bare, *other))
        found.append(Difference(test, bare_seen, other_seen, _is_flaky(bare_seen, other_seen), detail))
    return found


def attribute_to_threads(
    difference: Difference, idle: Sequence[ModuleRun], threadless: Sequence[ModuleRun]
) -> Difference:
    """Tell whether a difference is one of the number of threads, and nothing else.

    Args:
        difference: As `judge` found it.
        idle: Runs of bare Python with an idle thread.
        threadless: Runs of the other side with a metric reader that has no thread.
    """
    idle_seen, threadless_seen = {*_seen(difference.test, idle)}, {*_seen(difference.test, threadless)}
    unlike_bare = {*difference.other} - {*difference.bare}
    is_any_threads = bool(idle and threadless) and unlike_bare <= idle_seen
    is_any_threads = is_any_threads and threadless_seen <= {*difference.bare}
    return replace(difference, excuse=ANY_THREAD if is_any_threads else "")


def attribute_to_imports(difference: Difference, imported: Sequence[ModuleRun]) -> Difference:
    """Tell whether bare Python that has imported what any distro imports comes out like the other side.

    Only a difference that is there each time: nothing else vouches for it.
    """
    seen = {*_seen(difference.test, imported)}
    is_imports = bool(imported) and seen == {*difference.other} and not seen & {*difference.bare}
    return replace(difference, excuse=IMPORTS if is_imports else "")


def classes_of(tests: Iterable[str], runs: Iterable[ModuleRun]) -> tuple[str, ...]:
    """Return the test classes that would show these differences again; none if only the whole module can."""
    found: set[str] = set()
    for test in tests:
        if test.endswith(UNFINISHED):
            said = (run.details.get(test, "") for run in runs)
            test = next((words for words in said if words.startswith(IN_OR_AFTER)), test).split("\n")[0]
        match = re.search(r"(\w+)\.\w+(?: #\d+)?$", test) or re.search(r"\(.*?(\w+)\)$", test)
        if match is None:
            return ()
        found.add(match[1])
    return tuple(sorted(found))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            return  # torn by a crash, or being written


def _is_flaky(bare_seen: Sequence[str], other_seen: Sequence[str]) -> bool:
    bare_alone, other_alone = bare_seen[1:] or bare_seen, other_seen[1:] or other_seen
    bare_crashes, other_crashes = (any(map(_is_crash, seen)) for seen in (bare_seen, other_seen))
    return (
        bare_crashes == other_crashes
        and {*other_alone} <= {*bare_seen, NOT_REACHED}
        and {*bare_alone} <= {*other_seen, NOT_REACHED}
    )


def _is_crash(outcome: str) -> bool:
    return outcome.startswith("crash")


def _seen(test: str, runs: Iterable[ModuleRun]) -> tuple[str, ...]:
    """Return a test's outcome in each run, in words where it has none."""
    is_unfinished = test.endswith(UNFINISHED)
    return tuple(
        run.outcomes.get(test, FINISHED if is_unfinished else ABSENT if run.is_finished else NOT_REACHED)
        for run in runs
    )


def _detail(test: str, runs: Sequence[ModuleRun]) -> str:
    """Return the last thing said about a test that did not pass."""
    said = (run.details.get(test, "") for run in reversed(runs) if run.outcomes.get(test) != "pass")
    return next((detail for detail in said if detail), "")
