"""Every span of every child arrives, once, with the right parent."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import Run, environ_for
from tests.e2e.propagation.table import SETTINGS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

ITEMS = 1_000  # of a row of processes, between them
FEW = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": SETTINGS["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"]}

PROCESSES = """
    import multiprocessing, sys
    from opentelemetry import trace

    tracer = trace.get_tracer("app")

    def work(number):
        for each in range({spans}):
            with tracer.start_as_current_span(f"item {{number}}.{{each}}"):
                pass

    if __name__ == "__main__":
        context = multiprocessing.get_context("{method}")
        for first in range(0, {processes}, 5):  # a few at a time, each started inside a span of its own
            children = []
            for number in range(first, first + 5):
                with tracer.start_as_current_span(f"start {{number}}"):
                    child = context.Process(target=work, args=(number,))
                    child.start()
                children.append(child)
            for child in children:
                child.join()
                assert child.exitcode == 0, child
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("method", "processes"), [("fork", 50), ("forkserver", 25), ("spawn", 10)])
def test_every_span_of_every_process_arrives_once(
    run: Run, receiver: OtlpProtoTestServer, method: str, processes: int
) -> None:
    """A thousand items; the children end as multiprocessing's do, without the interpreter's own exit."""
    program = PROCESSES.format(method=method, processes=processes, spans=ITEMS // processes)
    ended = run(program, env=environ_for(receiver) | FEW)
    assert (ended.code, ended.err) == (0, "")
    assert told(receiver) == expected(processes, ITEMS // processes)


PROGRAMS = """
    import subprocess, sys
    from opentelemetry import trace

    tracer = trace.get_tracer("app")

    def work(number):
        for each in range({spans}):
            with tracer.start_as_current_span(f"item {{number}}.{{each}}"):
                pass

    if len(sys.argv) > 1:
        work(int(sys.argv[1]))
    else:
        for first in range(0, {programs}, 5):
            children = []
            for number in range(first, first + 5):
                with tracer.start_as_current_span(f"start {{number}}"):
                    children.append(subprocess.Popen([sys.executable, __file__, str(number)]))
            for child in children:
                assert child.wait() == 0
"""


@pytest.mark.timeout(300)
def test_every_span_of_every_program_arrives_once(run: Run, receiver: OtlpProtoTestServer) -> None:
    ended = run(PROGRAMS.format(programs=5, spans=40), env=environ_for(receiver) | FEW)
    assert (ended.code, ended.err) == (0, "")
    assert told(receiver) == expected(5, 40)


def expected(children: int, spans: int) -> Counter[tuple[str, str]]:
    """Each span's name beside its parent's."""
    return Counter(
        [
            *((f"start {number}", "") for number in range(children)),
            *(
                (f"item {number}.{each}", f"start {number}")
                for number in range(children)
                for each in range(spans)
            ),
        ]
    )


def told(receiver: OtlpProtoTestServer) -> Counter[tuple[str, str]]:
    spans = [each.span for each in receiver.drain_spans()]
    names = {(span.trace_id, span.span_id): span.name for span in spans}
    known = names | {(span.trace_id, b""): "" for span in spans}
    return Counter((span.name, known.get((span.trace_id, span.parent_span_id), "unknown")) for span in spans)


UNWINDS = """
    import os
    from opentelemetry import trace

    with trace.get_tracer("app").start_as_current_span("parent"):
        pid = os.fork()
        if pid == 0:
            with trace.get_tracer("app").start_as_current_span("child"):
                pass
            trace.get_tracer_provider().force_flush()
            os._exit(0)
        os.waitpid(pid, 0)
"""


def test_a_fork_of_its_own_keeps_the_parent(run: Run, receiver: OtlpProtoTestServer) -> None:
    ended = run(UNWINDS, env=environ_for(receiver) | FEW)
    assert ended.code == 0
    assert told(receiver) == Counter({("parent", ""): 1, ("child", "parent"): 1})


ENDS_THE_CURRENT = """
    import multiprocessing
    from opentelemetry import trace

    def work():
        trace.get_current_span().set_attribute("by", "child")
        trace.get_current_span().end()

    if __name__ == "__main__":
        with trace.get_tracer("app").start_as_current_span("parent"):
            child = multiprocessing.get_context("fork").Process(target=work)
            child.start()
            child.join()
"""


def test_a_child_that_ends_its_current_span_does_not_tell_of_the_parents(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    """Its copy of the parent's span could end, and arrive a second time."""
    ended = run(ENDS_THE_CURRENT, env=environ_for(receiver) | FEW)
    assert ended.code == 0
    spans = [each.span for each in receiver.drain_spans()]
    told = [(span.name, [pair.key for pair in span.attributes]) for span in spans]
    assert told == [("parent", ["thread.id", "thread.name"])]
