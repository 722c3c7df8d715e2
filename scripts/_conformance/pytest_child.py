"""Run tests with pytest in this process and write what became of each, line by line, as `child.py` does.

    python pytest_child.py OUTCOMES.jsonl SECONDS PLACES WORD ...

`PLACES` names classes, `module:class,module:class`; which of them have functions of ours is written last.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
from typing import IO, Any

if __name__ == "__main__":  # what tests spawn imports this file under another name, from elsewhere
    import pytest
    from child import OUTCOMES, create_task_is_patched
    from sanity import has_ours


class Recorder:
    """A pytest plugin that writes each test's outcome, under the test's own id."""

    def __init__(self, lines: IO[str], places: list[str]) -> None:
        """Record to `lines`, an open text file; look into `places` at the end."""
        self._lines = lines
        self._places = places
        self._seen: dict[str, int] = {}
        self._outcome = "pass"
        self._detail = ""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Begin a test; its outcome is a pass until something else happens."""
        self._outcome, self._detail = "pass", ""
        self.write(started=nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a part of a test: what comes before it, itself, what comes after it, a subtest."""
        outcome = _outcome(report)
        if OUTCOMES.index(outcome) > OUTCOMES.index(self._outcome):
            self._outcome, self._detail = outcome, report.longreprtext

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Write down a test's outcome."""
        self._record(nodeid, self._outcome, self._detail)

    def pytest_collectreport(self, report: Any) -> None:
        """Write down what could not be loaded, or skipped itself as a whole."""
        if report.outcome != "passed":
            self._record(report.nodeid, "skip" if report.skipped else "error", report.longreprtext)

    def pytest_sessionfinish(self) -> None:
        """Say that the end was reached; without a test, it was not."""
        if self._seen:
            self.write(finished=sum(self._seen.values()), ours=[name for name in self._places if _ours(name)])

    def write(self, **line: object) -> None:
        """Append one line that survives whatever happens next."""
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()

    def _record(self, test_id: str, outcome: str, detail: str) -> None:
        self._seen[test_id] = count = self._seen.get(test_id, 0) + 1
        name = test_id if count == 1 else f"{test_id} #{count}"
        self.write(test=name, outcome=outcome, detail=detail[-8000:])


def _outcome(report: Any) -> str:
    if hasattr(report, "wasxfail"):
        return "pass" if report.passed else "expected failure"  # a strict one has failed
    if report.failed:
        return "fail" if report.when == "call" else "error"
    return "skip" if report.skipped else "pass"


def _ours(place: str) -> bool:
    module, _, name = place.partition(":")
    return has_ours(getattr(importlib.import_module(module), name))


def main() -> None:
    """Do as the command line says."""
    path, seconds, places, *words = sys.argv[1:]
    # This file's folder is none of the tests' business; the one that they run in is, as with `python -m`.
    sys.path[0] = os.getcwd()
    faulthandler.dump_traceback_later(float(seconds))
    del sys.argv[1:]
    with open(path, "w", encoding="utf-8") as lines:
        recorder = Recorder(lines, [place for place in places.split(",") if place])
        recorder.write(is_patched=create_task_is_patched())
        pytest.main(words, plugins=[recorder])


if __name__ == "__main__":
    main()
