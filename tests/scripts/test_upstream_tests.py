"""`scripts/upstream-tests`: what is read from a run, and that a difference is seen."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest">
<testcase classname="tests.a.A" name="test_pass"/>
<testcase classname="tests.a.A" name="test_fail"><failure message="no">because</failure></testcase>
<testcase classname="tests.a.A" name="test_skip"><skipped message="later"/></testcase>
<testcase classname="tests.a.A" name="test_both"><failure message="no">first</failure></testcase>
<testcase classname="tests.a.A" name="test_both"><error message="teardown">second</error></testcase>
<testcase classname="tests.a.A" name="test_both"/>
</testsuite></testsuites>
"""


def test_each_test_of_a_report_has_its_worst_outcome() -> None:
    """pytest writes a case twice when its teardown breaks."""
    from _upstream.suites import Results, read_report

    assert read_report(REPORT) == Results(
        {
            "tests.a.A.test_pass": "pass",
            "tests.a.A.test_fail": "fail",
            "tests.a.A.test_skip": "skip",
            "tests.a.A.test_both": "error",
        },
        {
            "tests.a.A.test_pass": "",
            "tests.a.A.test_fail": "because",
            "tests.a.A.test_skip": "later",
            "tests.a.A.test_both": "second",
        },
    )


class TestRunSuite:
    """A suite of a source package, in an environment."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """A package whose test fails with a variable of ours set."""
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests" / "test_a.py").write_text(
            "import os\n"
            "def test_strange(): assert 'OTEL_STRANGE' not in os.environ\n"
            "def test_ours(): assert 'OTEL_OURS' not in os.environ\n"
        )
        return tmp_path

    def test_only_the_side_with_ours_gets_our_settings(
        self, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And the caller's reach neither."""
        from _upstream.suites import Suite, run_suite

        monkeypatch.setenv("OTEL_STRANGE", "1")
        suite = Suite("hand made", "none", ("tests/test_a.py",), variables={"OTEL_OURS": "1"})
        without = run_suite(suite, sys.executable, source, is_ours=False)
        with_ours = run_suite(suite, sys.executable, source, is_ours=True)
        strange, ours = "tests.test_a.test_strange", "tests.test_a.test_ours"
        assert without.outcomes == {strange: "pass", ours: "pass"}
        assert with_ours.outcomes == {strange: "pass", ours: "fail"}

    def test_a_run_without_a_result_is_no_success(self, source: Path) -> None:
        """pytest that does not start leaves no report; both sides empty would be the same."""
        from _upstream.sources import UpstreamError
        from _upstream.suites import Suite, run_suite

        suite = Suite("hand made", "none", ("tests/test_a.py",), plugin="no_such_plugin")
        with pytest.raises(UpstreamError, match=r"could not run hand made(.|\n)*no_such_plugin"):
            run_suite(suite, sys.executable, source, is_ours=True)


def test_a_difference_is_printed_with_what_pytest_said(upstream_tests: ModuleType) -> None:
    """Under the line of its suite."""
    from _upstream.suites import Results, Suite

    suite = Suite("contract", "some", ())
    without = Results({"a": "pass", "b": "fail"}, {})
    with_ours = Results({"a": "fail", "b": "fail"}, {"a": "E  assert 1 == 2"})
    assert upstream_tests.describe(suite, "some 1.0", without, with_ours)[1:] == [
        "DIFFERENT: a: without pass, with ours fail",
        "    E  assert 1 == 2",
    ]
    (line,) = upstream_tests.describe(suite, "some 1.0", without, without)
    words = " ".join(line.split())
    assert words == "contract some 1.0 2 tests, 1 pass, 0 skip, 1 fail without ours: same with ours"


def test_what_is_meant_to_differ_is_told_and_has_to(upstream_tests: ModuleType) -> None:
    """It does not count; a reason that nothing needs any more does."""
    from _upstream.suites import Results, Suite

    suite = Suite("contract", "some", (), deliberate={"a": "ours is better"})
    passed, failed = Results({"a": "pass"}, {}), Results({"a": "fail"}, {})
    assert upstream_tests.unexpected(suite, passed, failed) == []
    assert upstream_tests.unexpected(suite, passed, passed) == ["a"]
    assert upstream_tests.describe(suite, "some 1.0", passed, failed)[1:] == ["on purpose: a: ours is better"]


def test_sources_are_kept_once_got(tmp_path: Path) -> None:
    """No pip runs for a release that is there."""
    from _upstream.sources import source_of

    folder = tmp_path / "upstream-sources" / "some-1.0"
    folder.mkdir(parents=True)
    assert source_of("/nowhere/python", "some", "1.0", tmp_path) == folder


def test_an_environment_without_us_is_refused(upstream_tests: ModuleType, tmp_path: Path) -> None:
    """It says what to install; nothing would be compared."""
    from _upstream.sources import UpstreamError

    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"pytest": "9.0", "opentelemetry-sdk": "1.45.1"}\'\n')
    python.chmod(0o755)
    missing = (
        "otel-concurrency, opentelemetry-instrumentation, opentelemetry-instrumentation-threading, "
        "opentelemetry-instrumentation-exceptions"
    )
    with pytest.raises(UpstreamError, match=f"has no {missing}: install the project"):
        upstream_tests.compare(str(python), tmp_path)
