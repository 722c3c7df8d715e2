"""The pytest plugin, in runs of pytest of their own: silent unless asked, then exact."""

from __future__ import annotations

import textwrap

import pytest

from otel_concurrency.probes.watch import make_watch

pytest_plugins = ["pytester"]

TESTS = textwrap.dedent("""
    import asyncio, time
    import pytest

    async def forget():
        await asyncio.sleep(3600)

    async def fail():
        raise LookupError("nobody looks")

    def compute(seconds):
        began = time.thread_time()
        while time.thread_time() - began < seconds:
            sum(range(1000))

    async def healthy():
        await asyncio.gather(*[asyncio.sleep(0.001) for _ in range(20)])

    async def blocking():
        time.sleep(0.6)

    async def slow():
        compute(0.3)

    async def leaking():
        asyncio.ensure_future(forget()).set_name("straggler")
        await asyncio.sleep(0)

    async def unread():
        asyncio.ensure_future(fail()).set_name("loser")
        await asyncio.sleep(0.01)

    async def cancelling():
        task = asyncio.ensure_future(forget())
        await asyncio.sleep(0)
        task.cancel()

    SCENES = [healthy, cancelling, blocking, leaking, unread]
""")
RUN = """
    @pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
    def test_it(scene):
        asyncio.run(scene())
"""
FOUND = {
    "blocking": "blocked_loop: * blocked the event loop for *",
    "leaking": "leaked_task: task 'straggler' of *.forget was left behind at *scenes.py:*",
    "unread": "unretrieved_exception: task 'loser' of scenes.fail failed, and nobody looked: LookupError: *",
}


@pytest.fixture
def scenes(pytester: pytest.Pytester) -> pytest.Pytester:
    """Has the scenes in a module of its own; no configuration of ours."""
    pytester.makepyfile(scenes=TESTS)
    pytester.makeini("""
        [pytest]
        addopts = -p no:cacheprovider -p no:xdist
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = function
    """)
    return pytester


def run(scenes: pytest.Pytester, *arguments: str, code: str = RUN) -> pytest.RunResult:
    scenes.makepyfile(test_scenes="from scenes import *\n" + textwrap.dedent(code))
    return scenes.runpytest_subprocess(*arguments)


def test_nothing_happens_unless_it_is_asked_for(scenes: pytest.Pytester) -> None:
    scenes.makeconftest("""
        import sys

        def pytest_unconfigure():
            print("loaded:", [n for n in sys.modules if n.startswith(("otel_concurrency.", "opentelemetry"))])
    """)
    result = run(scenes)
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["loaded: ?'otel_concurrency._version', 'otel_concurrency.pytest_plugin'?"])


@pytest.mark.parametrize("way", ["option", "ini"])
def test_failures_name_what_was_done(scenes: pytest.Pytester, way: str) -> None:
    if way == "ini":
        scenes.makeini("[pytest]\notel_concurrency = fail\nasyncio_mode = auto")
    result = run(scenes, *(["--otel-concurrency=fail"] if way == "option" else []))
    result.assert_outcomes(passed=2, failed=3)
    for scene, line in FOUND.items():
        result.stdout.fnmatch_lines([f"*test_it?{scene}?*", line])


def test_warnings_are_warnings(scenes: pytest.Pytester) -> None:
    result = run(scenes, "--otel-concurrency=warn")
    result.assert_outcomes(passed=5, warnings=3)
    result.stdout.fnmatch_lines_random([f"*ConcurrencyWarning: {line}" for line in FOUND.values()])


def test_checks_and_threshold_are_chosen(scenes: pytest.Pytester) -> None:
    arguments = ["--otel-concurrency=fail", "--otel-concurrency-checks=blocked_loop, leaked_task"]
    result = run(scenes, *arguments, "--otel-concurrency-threshold=30")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines([FOUND["leaking"]])


def test_a_marker_decides_for_its_test(scenes: pytest.Pytester) -> None:
    code = """
        @pytest.mark.otel_concurrency
        def test_marked():
            asyncio.run(blocking())

        @pytest.mark.otel_concurrency("warn")
        def test_warned():
            asyncio.run(blocking())

        @pytest.mark.otel_concurrency(checks="leaked_task")
        def test_something_else():
            asyncio.run(blocking())

        @pytest.mark.otel_concurrency(threshold=30)
        def test_patient():
            asyncio.run(blocking())

        def test_unmarked():
            asyncio.run(blocking())
    """
    result = run(scenes, "--strict-markers", code=code)
    result.assert_outcomes(passed=4, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["FAILED *::test_marked - *"])
    off = run(
        scenes,
        "--otel-concurrency=fail",
        code="""
        @pytest.mark.otel_concurrency("off")
        def test_it():
            asyncio.run(blocking())
    """,
    )
    off.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--otel-concurrency=fail", "--otel-concurrency-checks=x"], RUN, "*no such check: x; there are*"),
        (["--otel-concurrency=fail", "--otel-concurrency-threshold=0"], RUN, "*0 is no time in seconds"),
        (
            [],
            "@pytest.mark.otel_concurrency('loud')\ndef test_it(): ...",
            "*::test_it: marker otel_concurrency: 'loud' is none of off, warn, fail",
        ),
    ],
)
def test_wrong_settings_are_named(
    scenes: pytest.Pytester, arguments: list[str], code: str, complaint: str
) -> None:
    result = run(scenes, *arguments, code=code)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([complaint])


def test_a_test_that_fails_fails_as_before_and_tells_the_rest(scenes: pytest.Pytester) -> None:
    code = """
        def test_it():
            asyncio.run(blocking())
            assert 1 == 2
    """
    result = run(scenes, "--otel-concurrency=fail", code=code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E  *assert 1 == 2", "*otel-concurrency call*", FOUND["blocking"]])


ASYNC = """
    @pytest.fixture
    async def server():
        task = asyncio.ensure_future(forget())
        yield
        task.cancel()

    {mark}
    @pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
    async def test_it(scene, server):
        await scene()
"""


@pytest.mark.parametrize("plugin", ["asyncio", "anyio", "uvloop"])
def test_other_plugins_tests_are_checked_alike(scenes: pytest.Pytester, plugin: str) -> None:
    """With a fixture whose task outlives the test, as it may."""
    mark = "@pytest.mark.asyncio"
    if plugin == "asyncio":
        pytest.importorskip("pytest_asyncio")
    else:
        if plugin == "uvloop":
            pytest.importorskip("uvloop")
            if not make_watch().sees_stalls:
                pytest.skip("without the C extension nobody sees inside of libuv")
        scenes.makeini("[pytest]\naddopts = -p no:cacheprovider -p no:asyncio")
        mark = "@pytest.mark.anyio"
        options = {"use_uvloop": plugin == "uvloop"}
        scenes.makeconftest(f"""
            import pytest

            @pytest.fixture
            def anyio_backend():
                return "asyncio", {options}
        """)
    result = run(scenes, "--otel-concurrency=fail", code=ASYNC.format(mark=mark))
    result.assert_outcomes(passed=2, failed=3)
    for scene, line in FOUND.items():  # anyio raises what nobody reads by itself: then it stands beside that
        result.stdout.fnmatch_lines([f"*test_it?{scene}?*", line])


def test_loops_are_left_as_they_were(scenes: pytest.Pytester) -> None:
    scenes.makeconftest("""
        import asyncio
        names = "run_until_complete", "run_forever", "call_exception_handler"
        before = [vars(asyncio.BaseEventLoop)[name] for name in names]

        def pytest_unconfigure():
            print("same:", before == [vars(asyncio.BaseEventLoop)[name] for name in names])
    """)
    run(scenes, "--otel-concurrency=warn").stdout.fnmatch_lines(["same: True"])


def test_fixtures_that_leave_exceptions_unread_are_errors(scenes: pytest.Pytester) -> None:
    code = """
        @pytest.fixture
        def server():
            yield
            asyncio.run(unread())

        def test_it(server): ...
    """
    result = run(scenes, "--otel-concurrency=fail", code=code)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([FOUND["unread"]])


@pytest.mark.scenario
def test_who_held_the_loop_and_why(scenes: pytest.Pytester) -> None:
    code = """
        @pytest.mark.parametrize("scene", [blocking, slow], ids=lambda scene: scene.__name__)
        def test_it(scene):
            asyncio.run(scene())
    """
    result = run(scenes, "--otel-concurrency=fail", code=code)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "blocked_loop: scenes.blocking blocked the event loop for * s, in time.sleep at *scenes.py:*",
            "slow_callback: scenes.slow held the event loop for * s, computing at *scenes.py:*",
        ]
    )
