"""Only an interpreter that a pool of the program has made is a worker."""

from __future__ import annotations

import sys

import pytest

from otel_concurrency.hooks.interpreters import is_main_interpreter, is_worker_interpreter


def test_the_main_interpreter_is_none() -> None:
    assert (is_main_interpreter(), is_worker_interpreter()) == (True, False)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="came with CPython 3.14")
def test_one_of_a_pool_is() -> None:
    from concurrent.futures import InterpreterPoolExecutor  # type: ignore[attr-defined]

    with InterpreterPoolExecutor(1) as pool:
        assert pool.submit(is_worker_interpreter).result(60) is True
