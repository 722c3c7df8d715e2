"""A program without handlers logs as it would without us, and its records are still exported."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from otel_concurrency.hooks.logs.log_handler import LogHandlerHook
from otel_concurrency.hooks.patch import Patch


class Recorder(logging.Handler):
    """Upstream's handler, as far as this goes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


@pytest.fixture
def recorder() -> Recorder:
    """Stands for upstream's handler."""
    return Recorder()


@pytest.fixture
def hook(recorder: Recorder) -> Iterator[LogHandlerHook]:
    before = vars(logging.Logger)["callHandlers"]
    hook = LogHandlerHook()
    yield hook
    hook.remove(put_back=False)
    assert vars(logging.Logger)["callHandlers"] is before


@contextmanager
def alone(recorder: Recorder) -> Iterator[None]:
    """The recorder is the root logger's only handler; pytest's come and go with the phases of a test."""
    handlers, logging.root.handlers = logging.root.handlers, [recorder]
    try:
        yield
    finally:
        logging.root.handlers = handlers


def test_the_last_resort_speaks_and_the_handler_hears(
    hook: LogHandlerHook, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the hook nothing is printed."""
    with alone(recorder):
        logger = logging.getLogger("tests.log_handler")
        logger.warning("before")
        hook.install(recorder)
        hook.install(recorder)
        assert not logger.hasHandlers()
        logger.warning("during")
        hook.remove(put_back=True)
        assert logging.root.handlers == [recorder]
        logger.warning("after")
        assert capsys.readouterr().err.splitlines() == ["during"]
        assert recorder.seen == ["before", "during", "after"]


def test_a_function_of_the_module_sets_logging_up(
    hook: LogHandlerHook, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `logging.warning` does where the root logger has no handler."""
    with alone(recorder):
        hook.install(recorder)
        logging.warning("heard")
        (handler,) = logging.root.handlers
        assert type(handler) is logging.StreamHandler
        assert (capsys.readouterr().err, recorder.seen) == ("WARNING:root:heard\n", ["heard"])


def test_it_hears_what_reaches_the_root_and_its_level(hook: LogHandlerHook, recorder: Recorder) -> None:
    """A logger that does not propagate kept its records from it before, too."""
    with alone(recorder):
        hook.install(recorder)
        recorder.setLevel(logging.ERROR)
        apart = logging.getLogger("tests.log_handler.apart")
        apart.propagate = False
        below = logging.getLogger("tests.log_handler.apart.below")
        for logger in (apart, below, logging.getLogger("tests.log_handler"), logging.root):
            logger.warning("%s warns", logger.name)
            logger.error("%s fails", logger.name)
        apart.propagate = True
        assert recorder.seen == ["tests.log_handler fails", "root fails"]


def test_an_error_of_the_programs_handler_goes_its_way(hook: LogHandlerHook, recorder: Recorder) -> None:
    """And the record is exported all the same."""
    with alone(recorder):

        class Refusing(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise ValueError("no")

        hook.install(recorder)
        logging.root.addHandler(Refusing())
        with pytest.raises(ValueError, match="no"):
            logging.getLogger("tests.log_handler").warning("refused")
        assert recorder.seen == ["refused"]


def test_trouble_of_the_handler_stays_with_it(
    hook: LogHandlerHook,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Told as `logging` tells of a broken handler; the program runs on."""
    with alone(recorder):

        def broken(record: logging.LogRecord) -> None:
            raise ValueError("broken")

        monkeypatch.setattr(recorder, "emit", broken)
        hook.install(recorder)
        logging.getLogger("tests.log_handler").warning("said")
        said = capsys.readouterr().err
        assert said.startswith("said\n")
        assert "ValueError: broken" in said


def test_a_later_patch_survives_our_removal(
    hook: LogHandlerHook, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours stays beneath it, and says nothing to the handler."""
    with alone(recorder):
        monkeypatch.setattr(
            logging.Logger, "callHandlers", logging.Logger.callHandlers
        )  # put back at the end
        hook.install(recorder)
        calls: list[str] = []

        def theirs(original):  # type: ignore[no-untyped-def]
            def callHandlers(self, record):  # type: ignore[no-untyped-def]  # noqa: N802
                calls.append(record.getMessage())
                original(self, record)

            return callHandlers, lambda: None

        ours = vars(logging.Logger)["callHandlers"]
        patch = Patch(logging.Logger, "callHandlers", theirs)
        patch.install()
        hook.remove(put_back=False)
        logging.getLogger("tests.log_handler").warning("theirs")
        assert (calls, recorder.seen) == (["theirs"], [])
        patch.remove()
        assert vars(logging.Logger)["callHandlers"] is ours
        logging.getLogger("tests.log_handler").warning("ours, silent")
        assert recorder.seen == []
        monkeypatch.undo()


def test_a_handler_that_is_not_there_is_left_alone(hook: LogHandlerHook, recorder: Recorder) -> None:
    """Switched off, or the instrumentor is built differently."""
    with alone(recorder):
        before = logging.Logger.callHandlers
        hook.install(None)
        hook.install(Recorder())
        assert logging.Logger.callHandlers is before
        assert logging.root.handlers == [recorder]
