"""A work item sees the trace, the parent span and the baggage of whoever submitted it, wherever it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from tests.e2e.conftest import SILENT, Run, clean_environ
from tests.e2e.propagation.table import CELLS, YES, printed, run, verdict


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    return {column: run(column, clean_environ()) for column in CELLS}


@pytest.mark.timeout(400)  # seven programs, which start some eighty others
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_every_cell_of_the_table(
    table: Mapping[str, Mapping[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole of it at once, so that a cell that is missing shows as well."""
    with capsys.disabled():
        print(f"\n{printed({'': table})}")
    assert table == {column: dict.fromkeys(cells, YES) for column, cells in CELLS.items()}


@pytest.mark.skipif(sys.version_info < (3, 14), reason="came with CPython 3.14")
def test_a_pool_of_interpreters_is_left_alone_and_works(run: Run) -> None:
    program = """
        import json
        from concurrent.futures import InterpreterPoolExecutor
        from opentelemetry import trace

        if __name__ == "__main__":
            with InterpreterPoolExecutor(1) as pool:
                with trace.get_tracer("test").start_as_current_span("span"):
                    print(json.dumps([pool.submit(pow, 2, 5).result(30), *pool.map(abs, [-1, -2])]))
    """
    ended = run(program, env=SILENT)
    assert (ended.code, ended.err, ended.said()) == (0, "", [32, 1, 2])


def row(trace: str | None, span: str | None = None, **rest: str | None) -> dict[str, str | None]:
    return {"trace": trace, "span": span, "parent": None, "baggage": trace, "variable": trace} | rest


A, B, NOTHING = row("a", "1"), row("b", "2"), row(None)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ((A, B, NOTHING), "yes"),
        ((row("a", "9", parent="1"), row("b", "8", parent="2"), NOTHING), "yes"),
        ((NOTHING, NOTHING, NOTHING), "lost"),
        ((A, NOTHING, NOTHING), "at times"),
        ((A, A, NOTHING), "stale"),
        ((A, B, B), "stale outside"),
        ((A, B, row(None, baggage="b")), "stale outside"),
        ((A, row("b", "9"), NOTHING), "wrong parent"),
        ((A, row("c", "2"), NOTHING), "wrong parent"),
        ((A, row("b", "2", baggage=None), NOTHING), "no baggage"),
        ((row("a", "1", variable=None), B, NOTHING), "no variables"),
    ],
)
def test_verdicts(seen: tuple[dict[str, str | None], ...], said: str) -> None:
    """The judge itself: one that always says yes proves nothing."""
    assert verdict(list(zip(seen, (A, B, NOTHING), strict=True)), with_variables=True) == said
