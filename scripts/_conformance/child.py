"""Run one unittest module in this process and write what became of each test, line by line.

    python child.py test.test_asyncio.test_tasks OUTCOMES.jsonl [SECONDS [CLASS ...]]

Only the tests of the named classes are run, where some are named.

Standard library only: it runs bare as well as instrumented, on every interpreter. A line is written when a
test starts and when it ends, so a crash or a hang still tells which test it was.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import sys
import unittest
from collections.abc import Collection
from typing import IO, Any

# Worst last: of several things that happen to a test, the worst is its outcome.
OUTCOMES = ("pass", "skip", "expected failure", "unexpected success", "fail", "error")
# regrtest's resources, without those that leave the machine or need a screen.
RESOURCES = ("cpu", "subprocess", "walltime")
# Names for what no test stands for.
ENVIRONMENT, MODULE = "<environment>", "<module>"


class Recorder(unittest.TestResult):
    """Writes each test's outcome, under the test's own id."""

    def __init__(self, lines: IO[str]) -> None:
        """Record to `lines`, an open text file."""
        super().__init__()
        self._lines = lines
        self._seen: dict[str, int] = {}
        self._outcome = "pass"
        self._detail = ""

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 (unittest's name)
        """Begin a test; its outcome is a pass until something else happens."""
        super().startTest(test)
        self._outcome, self._detail = "pass", ""
        self.write(started=test.id())

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        """Write down a test's outcome."""
        super().stopTest(test)
        self._record(test.id(), self._outcome, self._detail)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        """Note a skipped test, or a whole class or module that was skipped."""
        super().addSkip(test, reason)
        self._note(test, "skip", reason)

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        """Note an error, of a test or of a fixture around tests."""
        super().addError(test, err)
        self._note(test, "error", self.errors[-1][1])

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        """Note a failed assertion."""
        super().addFailure(test, err)
        self._note(test, "fail", self.failures[-1][1])

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        """Note a failure that the test expects."""
        super().addExpectedFailure(test, err)
        self._note(test, "expected failure", "")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        """Note a success that the test does not expect."""
        super().addUnexpectedSuccess(test)
        self._note(test, "unexpected success", "")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        """Note a failed part of a test; the test's id stands for all its parts."""
        super().addSubTest(test, subtest, err)
        if err is not None:
            is_failure = issubclass(err[0], test.failureException)
            self._note(
                test, "fail" if is_failure else "error", (self.failures if is_failure else self.errors)[-1][1]
            )

    def write(self, **line: object) -> None:
        """Append one line that survives whatever happens next."""
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()

    def _note(self, test: unittest.TestCase, outcome: str, detail: str) -> None:
        if not isinstance(test, unittest.TestCase):
            # setUpClass, setUpModule and their like: no test is running that could carry the outcome.
            self._record(test.id(), outcome, detail)
        elif OUTCOMES.index(outcome) > OUTCOMES.index(self._outcome):
            self._outcome, self._detail = outcome, detail

    def _record(self, test_id: str, outcome: str, detail: str) -> None:
        # The same test may be in a module twice, by inheritance or by a loader's whim.
        self._seen[test_id] = count = self._seen.get(test_id, 0) + 1
        self.write(
            test=test_id if count == 1 else f"{test_id} #{count}", outcome=outcome, detail=detail[-8000:]
        )


def create_task_is_patched() -> bool:
    """Tell whether `create_task` is still asyncio's own, in this very process."""
    code = getattr(asyncio.BaseEventLoop.create_task, "__code__", None)
    return code is None or code.co_filename != asyncio.base_events.__file__


def only(suite: unittest.TestSuite, classes: Collection[str]) -> unittest.TestSuite:
    """Return the tests of these classes; what stands for a failed import belongs to every class."""
    kept = unittest.TestSuite()
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            kept.addTest(only(each, classes))
        elif type(each).__name__ in classes or type(each).__module__ == "unittest.loader":
            kept.addTest(each)
    return kept


def run_module(name: str, lines: IO[str], classes: Collection[str] = ()) -> None:
    """Load and run one module, as `python -m unittest` would, and say at the end that it got there."""
    from test import support

    support.use_resources = list(RESOURCES)
    recorder = Recorder(lines)
    recorder.write(is_patched=create_task_is_patched())
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(name)
    except unittest.SkipTest as skip:  # as a whole, at import: "Windows only"
        recorder.write(test=f"{name}.{MODULE}", outcome="skip", detail=str(skip))
    else:
        (only(suite, classes) if classes else suite).run(recorder)
    # What regrtest calls ENV_CHANGED: left-over threads or children, which a test itself does not notice.
    altered = bool(getattr(support, "environment_altered", False))
    recorder.write(
        test=f"{name}.{ENVIRONMENT}", outcome="fail" if altered else "pass", detail="environment altered"
    )
    recorder.write(finished=recorder.testsRun)


def main() -> None:
    """Do as the command line says."""
    module, path, *rest = sys.argv[1:]
    # This file's folder is none of the tests' business; they look into sys.path and sys.argv.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    if rest:
        # The parent kills; this tells where the time went.
        faulthandler.dump_traceback_later(float(rest[0]))
    del sys.argv[1:]
    with open(path, "w", encoding="utf-8") as lines:
        run_module(module, lines, rest[1:])


if __name__ == "__main__":
    main()
