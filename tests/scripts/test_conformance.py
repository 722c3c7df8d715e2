"""`scripts/conformance`: what counts as a difference, and that one is seen."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "conformance"

HAND_MADE = """
import unittest

class Outcomes(unittest.TestCase):
    def test_pass(self): pass
    def test_fail(self): self.fail("no")
    def test_error(self): raise OSError("broken")
    @unittest.skip("not here")
    def test_skip(self): pass
    @unittest.expectedFailure
    def test_expected(self): self.fail("known")
    @unittest.expectedFailure
    def test_unexpected(self): pass
    def test_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)
    def test_teardown(self):
        self.addCleanup(lambda: 1 / 0)
        self.skipTest("then breaks")

class Fixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise OSError("no fixture")
    def test_never(self): pass

@unittest.skip("a whole class")
class Skipped(unittest.TestCase):
    def test_one(self): pass
"""


class TestJudge:
    """From the outcomes of some runs to a verdict."""

    @staticmethod
    def judge(bare: list[dict[str, str]], other: list[dict[str, str]]) -> list[tuple[str, bool]]:
        """Return (test, is it flaky) of everything that differed."""
        from _conformance.compare import ModuleRun, judge

        found = judge([ModuleRun(each) for each in bare], [ModuleRun(each) for each in other])
        return [(each.test, each.is_flaky) for each in found]

    def test_the_same_outcomes_are_no_difference(self) -> None:
        """A test that fails on both sides fails bare: not our doing."""
        assert self.judge([{"a": "pass", "b": "fail"}], [{"a": "pass", "b": "fail"}]) == []

    @pytest.mark.parametrize("now", ["fail", "error", "skip", "expected failure", "absent"])
    def test_any_other_outcome_is_a_difference(self, now: str) -> None:
        """Also one that looks harmless: a test that is skipped under us is not run under us."""
        other = {} if now == "absent" else {"a": now}
        assert self.judge([{"a": "pass"}] * 4, [other] * 4) == [("a", False)]

    def test_a_test_that_only_we_make_pass_is_a_difference(self) -> None:
        """Behaviour changed, if for the better."""
        assert self.judge([{"a": "fail"}] * 4, [{"a": "pass"}] * 4) == [("a", False)]

    def test_what_differs_only_in_company_is_flaky(self) -> None:
        """Two modules ran at a time; alone, the test passes."""
        assert self.judge([{"a": "pass"}] * 4, [{"a": "fail"}] + [{"a": "pass"}] * 3) == [("a", True)]

    def test_what_fails_now_and_then_on_both_sides_is_flaky(self) -> None:
        """Each outcome was seen on the other side too."""
        bare = [{"a": "pass"}, {"a": "fail"}, {"a": "pass"}, {"a": "pass"}]
        other = [{"a": "fail"}, {"a": "pass"}, {"a": "fail"}, {"a": "pass"}]
        assert self.judge(bare, other) == [("a", True)]

    def test_what_fails_now_and_then_only_with_us_is_a_difference(self) -> None:
        """One failure alone, never seen bare, is enough: that is how a race of ours would look."""
        other = [{"a": "fail"}, {"a": "pass"}, {"a": "fail"}, {"a": "pass"}]
        assert self.judge([{"a": "pass"}] * 4, other) == [("a", False)]

    def test_a_hang_in_company_is_flaky_and_hides_no_test(self) -> None:
        """What it kept from running is not held against it, what it ran is."""
        whole = {"a": "pass", "b": "pass", "c": "pass"}
        hung = {"a": "fail", "m.<unfinished>": "timeout"}
        assert self.judge([whole] * 4, [hung, whole, whole, whole]) == [("a", True), ("m.<unfinished>", True)]
        assert self.judge([whole] * 4, [whole, hung, whole, whole]) == [
            ("a", False),
            ("m.<unfinished>", False),
        ]

    def test_a_crash_is_never_flaky_unless_bare_python_crashes_too(self) -> None:
        """No clock makes a process crash."""
        whole, crashed = {"a": "pass"}, {"m.<unfinished>": "crash (exit code -11)"}
        assert self.judge([whole] * 4, [crashed, whole, whole, whole]) == [("m.<unfinished>", False)]
        assert self.judge([crashed] + [whole] * 3, [whole] * 4) == [("m.<unfinished>", False)]
        assert self.judge([crashed, whole, whole], [whole, crashed, whole]) == [("m.<unfinished>", True)]

    def test_the_detail_is_the_last_trouble(self) -> None:
        """What the report prints under a difference."""
        from _conformance.compare import Difference, ModuleRun, judge

        bare = [ModuleRun({"a": "pass"}), ModuleRun({"a": "pass"})]
        other = [ModuleRun({"a": "fail"}, {"a": "first"}), ModuleRun({"a": "fail"}, {"a": "second"})]
        assert judge(bare, other) == [Difference("a", ("pass", "pass"), ("fail", "fail"), False, "second")]

    def test_what_any_thread_does_is_told_from_what_we_do(self) -> None:
        """Bare Python with an idle thread does as we do, we without the reader's thread do as bare Python."""
        from _conformance.compare import ANY_THREAD, Difference, ModuleRun, attribute_to_threads

        failed, passed = ModuleRun({"a": "fail"}), ModuleRun({"a": "pass"})
        found = Difference("a", ("pass",), ("fail",), False, "2 != 1")
        thread = attribute_to_threads(found, idle=[failed], threadless=[passed])
        assert (thread.excuse, thread.counts) == (ANY_THREAD, False)
        # The idle thread does nothing; ours stays wrong without the thread; once in three is once too often.
        for idle, threadless in (
            ([passed], [passed]),
            ([failed], [failed]),
            ([failed], [passed, failed, passed]),
            ([], []),
        ):
            assert attribute_to_threads(found, idle, threadless) == found

    def test_what_an_import_does_is_told_from_what_we_do(self) -> None:
        """Only where it does so each time, and bare Python without it never."""
        from _conformance.compare import IMPORTS, Difference, ModuleRun, attribute_to_imports

        failed, passed = ModuleRun({"a": "fail"}), ModuleRun({"a": "pass"})
        always = Difference("a", ("pass",), ("fail", "fail"), False, "")
        told = attribute_to_imports(always, [failed, failed])
        assert (told.excuse, told.counts) == (IMPORTS, False)
        for imported in ([passed], [failed, passed], [ModuleRun({"a": "error"})], []):
            assert attribute_to_imports(always, imported) == always
        now_and_then = Difference("a", ("pass",), ("fail", "pass"), False, "")
        assert attribute_to_imports(now_and_then, [failed, passed]) == now_and_then

    def test_only_the_classes_with_a_difference_run_again(self) -> None:
        """Of a long module; one with a hang names the test in which it hung."""
        from _conformance.compare import ModuleRun, classes_of

        hung = ModuleRun({}, {"m.<unfinished>": "in or after m.Hung.test_x\nstacks"})
        assert classes_of(["m.A.test_a", "m.A.test_b #2", "setUpClass (m.B)"], []) == ("A", "B")
        assert classes_of(["m.A.test_a", "m.<unfinished>"], [ModuleRun({}), hung]) == ("A", "Hung")
        assert classes_of(["m.A.test_a", "m.<environment>"], []) == ()


class TestChild:
    """One module in one process, written down line by line."""

    @pytest.fixture
    def run(
        self, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., object]:
        """Runs a hand-made module bare; gives its `ModuleRun`."""
        from _conformance.sides import Side

        monkeypatch.setattr(conformance, "GRACE_S", 2)  # for the stacks of a hang

        def run(source: str, timeout_s: float = 60, classes: Sequence[str] = ()) -> object:
            (tmp_path / "hand_made.py").write_text(source)
            (tmp_path / "runs").mkdir(exist_ok=True)
            side = Side("bare", sys.executable, (), {"PYTHONPATH": str(tmp_path)})
            runner = conformance.Runner([side], tmp_path / "runs", timeout_s=timeout_s)
            return runner._run("hand_made", side, classes)

        return run

    def test_every_outcome_has_its_word(self, run) -> None:  # type: ignore[no-untyped-def]
        """All of unittest's outcomes, the worst of several, fixtures, what stands for the module."""
        assert run(HAND_MADE).outcomes == {
            "hand_made.Outcomes.test_pass": "pass",
            "hand_made.Outcomes.test_fail": "fail",
            "hand_made.Outcomes.test_error": "error",
            "hand_made.Outcomes.test_skip": "skip",
            "hand_made.Outcomes.test_expected": "expected failure",
            "hand_made.Outcomes.test_unexpected": "unexpected success",
            "hand_made.Outcomes.test_parts": "fail",
            "hand_made.Outcomes.test_teardown": "error",
            "setUpClass (hand_made.Fixture)": "error",
            "hand_made.Skipped.test_one": "skip",
            "hand_made.<environment>": "pass",
        }

    def test_some_classes_can_be_run_alone(self, run) -> None:  # type: ignore[no-untyped-def]
        """With their fixtures, and with what stands for the module."""
        assert run(HAND_MADE, classes=("Fixture", "Skipped")).outcomes == {
            "setUpClass (hand_made.Fixture)": "error",
            "hand_made.Skipped.test_one": "skip",
            "hand_made.<environment>": "pass",
        }

    def test_a_module_that_skips_itself_is_one_skip(self, run) -> None:  # type: ignore[no-untyped-def]
        """As the tests for Windows do at import."""
        found = run("import unittest\nraise unittest.SkipTest('Windows only')\n")
        assert found.outcomes == {"hand_made.<module>": "skip", "hand_made.<environment>": "pass"}
        assert found.details["hand_made.<module>"] == "Windows only"

    def test_a_module_that_cannot_be_imported_is_an_error(self, run) -> None:  # type: ignore[no-untyped-def]
        """unittest makes a test of it that fails."""
        outcomes = run("import no_such_module\n").outcomes
        assert list(outcomes.values()) == ["error", "pass"]

    def test_a_crash_is_told_with_its_test(self, run) -> None:  # type: ignore[no-untyped-def]
        """What ran before it keeps its outcome."""
        found = run(
            "import os, signal, unittest\n"
            "class T(unittest.TestCase):\n"
            "    def test_a(self): pass\n"
            "    def test_b(self): os.kill(os.getpid(), signal.SIGKILL)\n"
            "    def test_c(self): pass\n"
        )
        unfinished = "hand_made.<unfinished>"
        assert found.outcomes == {
            "hand_made.T.test_a": "pass",
            unfinished: f"crash (exit code {-signal.SIGKILL})",
        }
        assert found.details[unfinished].startswith("in or after hand_made.T.test_b")

    def test_a_hang_is_ended_and_told(self, run) -> None:  # type: ignore[no-untyped-def]
        """After the time limit, with the stacks that faulthandler wrote."""
        found = run(
            "import signal, unittest\n"
            "class T(unittest.TestCase):\n"
            "    def test_hang(self):\n"
            "        while True: signal.pause()\n",
            timeout_s=1,
        )
        assert found.outcomes == {"hand_made.<unfinished>": "timeout"}
        detail = found.details["hand_made.<unfinished>"]
        assert detail.startswith("in or after hand_made.T.test_hang")
        assert "most recent call first" in detail

    def test_a_long_run_tells_where_it_is(
        self,
        conformance: ModuleType,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Some modules take minutes: which test it is in, and how far it got."""
        from _conformance import report
        from _conformance.sides import Side

        is_told = tmp_path / "told"
        still_running = report.still_running

        def tell(*facts: Any) -> str:
            line = still_running(*facts)
            if line.endswith("test_b"):
                is_told.touch()
            return line

        monkeypatch.setattr(report, "still_running", tell)
        monkeypatch.setattr(conformance, "TELL_EVERY_S", 0.05)
        side = Side("bare", sys.executable, (), {"PYTHONPATH": str(tmp_path)})
        (tmp_path / "slow_one.py").write_text(
            "import os, time, unittest\n"
            "class T(unittest.TestCase):\n"
            "    def test_a(self): pass\n"
            "    def test_b(self):\n"
            f"        while not os.path.exists({str(is_told)!r}): time.sleep(0.01)\n"
        )
        conformance.Runner([side], tmp_path, timeout_s=60).run_all(["slow_one"], 1)
        *told, end = capsys.readouterr().out.splitlines()
        where = re.compile(r" +… slow_one, bare: 1 done in \d+ s, now slow_one.T.test_b")
        assert any(map(where.fullmatch, told))
        assert re.fullmatch(r"\d:\d\d 1/1 slow_one, bare: 3 tests, 0 not passed, \d+ s", end)

    def test_what_a_test_leaves_running_is_ended(self, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        """The next module does not share the machine with it."""
        run(
            "import subprocess, sys, unittest\n"
            "class T(unittest.TestCase):\n"
            "    def test_leave(self):\n"
            "        words = [sys.executable, '-c', 'import signal; signal.pause()']\n"
            f"        open({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(words).pid))\n"
        )
        pid = int((tmp_path / "pid").read_text())
        deadline = time.monotonic() + 30
        while is_running(pid) and time.monotonic() < deadline:  # it was killed, and dies when it is scheduled
            time.sleep(0.01)
        assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Tell a process from a zombie that nobody reaps, and from none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestSettle:
    """What differs is run again, and asked where it comes from."""

    def test_an_import_of_anybodys_does_not_count(
        self, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hand-made module that looks for asyncio in a process of its own."""
        from _conformance import sides

        (tmp_path / "hand_made.py").write_text(
            "import os, subprocess, sys, unittest\n"
            "class T(unittest.TestCase):\n"
            "    def test_anew(self):\n"
            "        code = 'import sys; sys.exit(\"asyncio\" in sys.modules)'\n"
            "        self.assertEqual(subprocess.run([sys.executable, '-c', code]).returncode, 0)\n"
            "    def test_unharmed(self): self.assertNotIn('HARM', os.environ)\n"
        )
        (tmp_path / "runs").mkdir()
        both = f"{tmp_path}{os.pathsep}{sides._write_start(tmp_path, sides.IMPORTED)}"
        bare = sides.Side("bare", sys.executable, (), {"PYTHONPATH": str(tmp_path)})
        imported = sides.Side("imported", sys.executable, (), {"PYTHONPATH": both})
        other = sides.Side("native", sys.executable, (), {"PYTHONPATH": both, "HARM": "1"})
        runner = conformance.Runner([bare, other], tmp_path / "runs", imported=imported)
        monkeypatch.setattr(sides.Side, "is_ours", False)  # nothing of ours is on this side
        runner.run_all(["hand_made"], jobs=1)
        runner.settle(1)
        found = {each.test: each.counts for each in runner.findings["hand_made"]["native"]}
        assert found == {"hand_made.T.test_anew": False, "hand_made.T.test_unharmed": True}

    def test_a_thread_of_anybodys_does_not_count(
        self, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hand-made module that counts threads, and another side whose thread can be left out."""
        from _conformance import sides

        monkeypatch.setattr(sides, "_THREADLESS", {"PYTHONPATH": str(tmp_path)})
        (tmp_path / "hand_made.py").write_text(
            "import os, sys, threading, unittest\n"
            "class T(unittest.TestCase):\n"
            "    def test_alone(self): self.assertEqual(threading.active_count(), 1)\n"
            "    def test_unharmed(self): self.assertNotIn('HARM', os.environ)\n"
        )
        (tmp_path / "runs").mkdir()
        idle_folder = sides._write_start(tmp_path, sides.IDLE)
        both = f"{tmp_path}{os.pathsep}{idle_folder}"
        bare = sides.Side("bare", sys.executable, (), {"PYTHONPATH": str(tmp_path)})
        idle = sides.Side("idle", sys.executable, (), {"PYTHONPATH": both})
        other = sides.Side("native", sys.executable, (), {"PYTHONPATH": both, "HARM": "1"})
        runner = conformance.Runner([bare, other], tmp_path / "runs", idle=idle)
        monkeypatch.setattr(sides.Side, "is_ours", False)  # nothing of ours is on this side
        runner.run_all(["hand_made"], jobs=1)
        runner.settle(1)
        found = {each.test: each.counts for each in runner.findings["hand_made"]["native"]}
        assert found == {"hand_made.T.test_alone": False, "hand_made.T.test_unharmed": True}


class TestSides:
    """A side has to prove what it claims to be."""

    def test_nothing_of_the_callers_settings_reaches_a_side(self) -> None:
        """Neither OpenTelemetry's nor Python's variables; a stray one would make both sides the same."""
        from _conformance.sides import Side

        environ = {"OTEL_SDK_DISABLED": "true", "PYTHONPATH": "/x", "HOME": "/h"}
        assert Side("pure", "python", (), {"OTEL_A": "1"}).environment(environ) == {
            "HOME": "/h",
            "OTEL_A": "1",
        }

    @pytest.mark.parametrize(
        ("name", "found", "created", "problem"),
        [
            ("bare", {}, {}, None),
            ("bare", {"create_task_is_patched": True}, {}, "our task hook is active where it must not be"),
            (
                "native",
                {},
                {},
                "our task hook is not active: asyncio.BaseEventLoop.create_task is asyncio's own",
            ),
            (
                "native",
                {"create_task_is_patched": True, "probe_way": "pure"},
                {"x.sanity_child": 7},
                "tasks are followed by the pure probe, not by the proxy one",
            ),
            (
                "native",
                {"create_task_is_patched": True, "probe_way": "proxy", "release": "3.14.1"},
                {"x.sanity_child": 7},
                "tasks are followed by the proxy probe, not by the watcher one",
            ),
            (
                "pure",
                {"create_task_is_patched": True, "probe_way": "pure"},
                {"x.sanity_child": 6},
                "7 tasks were created, our probe counted 6",
            ),
            (
                "pure",
                {"create_task_is_patched": True, "probe_way": "pure"},
                {"x.sanity_child": 7, "pool sanity": 5},
                None,
            ),
            (
                "pure",
                {
                    "create_task_is_patched": True,
                    "probe_way": "pure",
                    "hooks": ["threads", "exit"],
                },
                {},
                (
                    "hooks of ours are not active: tasks, waits, event loops, loop exceptions, failures, "
                    "thread pools, futures, process pools, multiprocessing pools, processes, subprocesses"
                ),
            ),
            ("bare", {"hooks": ["exit"]}, {}, "hooks of ours are active where they must not be: ['exit']"),
            (
                "pure",
                {"create_task_is_patched": True, "asyncio_module_is_patched": True},
                {},
                "upstream's asyncio instrumentor is active beside ours",
            ),
            ("upstream", {}, {}, "upstream's asyncio instrumentor is not active"),
        ],
    )
    def test_a_side_that_is_something_else_is_refused(
        self, name: str, found: dict[str, object], created: dict[str, float], problem: str | None
    ) -> None:
        """Else two bare runs would agree about everything."""
        from _conformance.sides import HOOKS, Side

        facts = {
            "create_task_is_patched": False,
            "asyncio_module_is_patched": False,
            "probe_way": None,
            "hooks": [*HOOKS] if found.get("create_task_is_patched") and name != "bare" else [],
            "release": "3.12.1",
            **found,
        }
        assert Side(name, "python", (), {})._problem(facts, created) == problem


class TestModules:
    """Which test modules are run."""

    @pytest.fixture
    def package(self) -> object:
        """What an interpreter might have."""
        from _conformance.modules import TestPackage

        names = ("test.test_asyncio.test_tasks", "test.test_asyncio.test_context", "test.test_context")
        return TestPackage("3.14.8", "CPython", True, names)

    def test_a_name_means_every_module_that_ends_so(self, package) -> None:  # type: ignore[no-untyped-def]
        """`test_context` is one of asyncio's and one of its own."""
        from _conformance.modules import choose

        chosen = choose(package, names=["test_context"])
        assert chosen == ["test.test_asyncio.test_context", "test.test_context"]

    def test_short_is_tasks_and_their_like(self, package) -> None:  # type: ignore[no-untyped-def]
        """Nothing else of the suite."""
        from _conformance.modules import choose

        assert choose(package, short=True) == ["test.test_asyncio.test_tasks"]

    def test_a_package_and_a_group_mean_all_their_modules(self) -> None:
        """Short ones first, asyncio's long ones first: the order in which they are run."""
        from _conformance.modules import TestPackage, choose

        pools = ("test.test_concurrent_futures.test_init", "test.test_concurrent_futures.test_wait")
        asyncio = ("test.test_asyncio.test_context", "test.test_asyncio.test_tasks")
        package = TestPackage(
            "3.13.0", "CPython", True, (*asyncio, "test.test_thread", *pools, "test.test_popen")
        )
        assert choose(package, names=["test_concurrent_futures"]) == [*pools]
        assert choose(package, groups=["threads"]) == ["test.test_thread", *pools]
        assert choose(package) == [*reversed(asyncio), "test.test_thread", *pools, "test.test_popen"]

    def test_what_an_interpreter_came_without_is_named(self) -> None:
        """Unless its CPython has no such module."""
        from _conformance.modules import GROUPS, TestPackage

        names = [name for name in GROUPS["asyncio"] if name != "test.test_external_inspection"]
        assert TestPackage("3.13.0", "CPython", True, tuple(names)).missing(["asyncio"]) == []
        whole = TestPackage("3.14.0", "CPython", True, (*names, "test.test_thread"))
        assert whole.missing(["asyncio"]) == ["test.test_external_inspection"]
        assert "test.test_thread" not in whole.missing()
        assert "test.test_multiprocessing_fork" in whole.missing()

    def test_a_long_module_has_a_long_time_limit(self) -> None:
        """And every module has one."""
        from _conformance.modules import time_limit_s

        limits = [
            time_limit_s(f"test.{name}") for name in ("test_multiprocessing_fork.test_misc", "test_queue")
        ]
        assert limits == [2400, 300]

    def test_an_unknown_name_is_refused(self, package) -> None:  # type: ignore[no-untyped-def]
        """A typing slip must not look like a comparison without differences."""
        from _conformance.modules import choose

        with pytest.raises(LookupError, match=r"3\.14\.8 has no test module test_takss"):
            choose(package, names=["test_takss"])


def run_script(*words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run `scripts/conformance`."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--python", python, *words],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


HAS_TESTS = (
    importlib.util.find_spec("test") is not None and importlib.util.find_spec("test.test_asyncio") is not None
)
needs_tests = pytest.mark.skipif(not HAS_TESTS, reason="this interpreter came without its own tests")


class TestScript:
    """The whole, on a small module of CPython's."""

    @needs_tests
    def test_our_distro_changes_nothing(self, tmp_path: Path) -> None:
        """Both probes, and the file for programs."""
        done = run_script("--json", str(tmp_path / "seen.json"), "test_asyncio.test_threads")
        assert done.stderr == ""
        assert done.returncode == 0, done.stdout
        seen = json.loads((tmp_path / "seen.json").read_text())
        sides = seen["modules"]["test.test_asyncio.test_threads"]["sides"]
        assert (seen["differences"], list(sides)) == (0, ["bare", "native", "pure"])
        outcomes = [run["outcomes"] for runs in sides.values() for run in runs]
        assert outcomes[1:] == outcomes[:-1]
        assert list(outcomes[0].values()).count("pass") >= 7

    @needs_tests
    def test_a_harmful_instrumentor_is_seen(self, tmp_path: Path) -> None:
        """One that talks and loses the results of `to_thread`, put beside ours as any package could be."""
        metadata = tmp_path / "harm-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: harm\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text("[opentelemetry_post_instrument]\nharm = harm:harm\n")
        (tmp_path / "harm.py").write_text(
            "import asyncio, sys\n"
            "def harm():\n"
            "    print('harmful', file=sys.stderr)\n"
            "    original = asyncio.to_thread\n"
            "    async def to_thread(function, /, *args, **kwargs):\n"
            "        await original(function, *args, **kwargs)\n"
            "    asyncio.to_thread = to_thread\n"
        )
        done = run_script(
            "--mode", "pure", "--reruns", "1", "--with-path", str(tmp_path), "test_asyncio.test_threads"
        )
        different = [line for line in done.stdout.splitlines() if line.startswith("DIFFERENT")]
        assert done.returncode == 1
        assert (
            "DIFFERENT: test.test_asyncio.test_threads.ToThreadTests.test_to_thread: "
            "bare pass/pass, pure fail/fail" in different
        )
        assert done.stdout.splitlines()[-3:-1] == [
            "DIFFERENT: on pure a small program printed, from start to exit:",
            "    harmful",
        ]

    @needs_tests
    def test_an_environment_without_us_compares_nothing(self, tmp_path: Path) -> None:
        """No `opentelemetry-instrument` beside the interpreter: refused, not passed."""
        link = tmp_path / "python"
        link.symlink_to(sys._base_executable)  # type: ignore[attr-defined]
        done = run_script("test_threads", python=str(link))
        assert done.returncode == 3
        assert f"conformance: {tmp_path}/opentelemetry-instrument is missing" in done.stderr

    def test_an_interpreter_without_its_tests_names_the_package(self, tmp_path: Path) -> None:
        """Exit code 2, so that a caller can tell it from a difference."""
        python = tmp_path / "python"
        python.write_text('#!/bin/sh\necho \'["3.12.3", "CPython", false, []]\'\n')
        python.chmod(0o755)
        done = run_script(python=str(python))
        assert (done.returncode, done.stdout) == (2, "")
        assert "on Debian install libpython3.12-testsuite" in done.stderr
