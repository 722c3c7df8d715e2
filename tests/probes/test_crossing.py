"""A work item's way over and back, and its twin: what a worker notes of it, and what stands in the way."""

from __future__ import annotations

import abc
import contextvars
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.crossing import KEY, Again, Crossing
from otel_concurrency.probes.work import WorkProbe

current: contextvars.ContextVar[Any] = contextvars.ContextVar("current")
CARRIER = {"traceparent": "00-…"}


def add(one: int, other: int = 1) -> int:
    return one + other


class Diary:
    """An observer, and what is told of trouble: what was said, in order."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.troubles: list[Exception] = []
        self.end: Any = self.note_end
        self.late: Any = None

    def __call__(self, *told: Any) -> Any:
        self.said.append(told)
        return self.end

    def note_end(self, error: Any, stacktrace: Any) -> Any:
        self.said.append((error, stacktrace))
        return self.late

    def note_late(self) -> None:
        self.said.append("late")


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> WorkProbe:
    return make_work_probe(native=request.param)


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def crossing(probe: WorkProbe, diary: Diary) -> Crossing:
    return probe.crossing(diary, diary.troubles.append, context_var=current)


def begin(crossing: Crossing, parcel: Any = None, *, age_ns: int = 0) -> None:
    crossing.begin(7, parcel or (CARRIER, time.monotonic_ns() - age_ns, "pool"), "mp_pool", add, (1,))


def test_an_item_is_observed_and_timed(crossing: Crossing, diary: Diary) -> None:
    before = time.monotonic_ns()
    begin(crossing, age_ns=1_000_000_000)
    error = ValueError()
    timing = crossing.end(7, error, "Traceback …")
    took = time.monotonic_ns() - before
    assert timing is not None
    assert 1_000_000_000 <= timing[0] <= 1_000_000_000 + took
    assert 0 <= timing[1] <= took
    assert diary.said == [(add, (1,), CARRIER, "pool", "mp_pool", timing[0]), (error, "Traceback …")]


def test_a_second_result_of_an_item_says_what_the_first_did(crossing: Crossing, diary: Diary) -> None:
    begin(crossing)
    assert crossing.end(7, None, None) == crossing.end(7, ValueError(), "…")
    assert diary.said[1:] == [(None, None)]


def test_of_another_item_it_says_nothing(crossing: Crossing) -> None:
    assert crossing.end(7, None, None) is None
    begin(crossing)
    assert crossing.end(8, None, None) is None
    crossing.begin(8, None, "process", add, (1,))  # from a submitter that is not observed
    assert crossing.end(7, None, None) is None
    assert crossing.end(8, None, None) is None


def test_a_submitter_ahead_of_our_clock_makes_no_negative_time(crossing: Crossing) -> None:
    begin(crossing, age_ns=-1_000_000_000)
    timing = crossing.end(7, None, None)
    assert timing is not None
    assert timing[0] == 0


def test_what_is_left_is_done_once_after_the_end(crossing: Crossing, diary: Diary) -> None:
    diary.late = diary.note_late
    begin(crossing)
    crossing.finish()
    assert len(diary.said) == 1
    crossing.end(7, None, None)
    assert diary.said[-1] != "late"
    crossing.finish()
    crossing.finish()
    assert diary.said[1:] == [(None, None), "late"]


def test_what_is_left_is_done_before_the_next_item_at_the_latest(crossing: Crossing, diary: Diary) -> None:
    diary.late = diary.note_late
    begin(crossing)
    crossing.end(7, None, None)
    begin(crossing)
    assert diary.said[2] == "late"


def test_a_token_puts_back_what_was_current(crossing: Crossing, diary: Diary) -> None:
    def run() -> None:
        diary.end = current.set("inside")
        begin(crossing)
        assert current.get() == "inside"
        assert crossing.end(7, None, None) is not None
        assert current.get(None) is None

    contextvars.copy_context().run(run)
    assert diary.troubles == []


def test_what_comes_with_a_token_is_told_how_the_item_ended_once_its_result_is_out(
    crossing: Crossing, diary: Diary
) -> None:
    def ended(*told: Any) -> None:
        diary.said.append((*told, current.get(None)))

    def run() -> None:
        diary.end = (current.set("inside"), ended)
        begin(crossing)
        before = time.time_ns()
        crossing.end(7, error, "Traceback …")
        after = time.time_ns()
        assert current.get(None) is None
        assert len(diary.said) == 1
        crossing.finish()
        crossing.finish()
        (told,) = diary.said[1:]
        assert (*told[:2], told[3]) == (error, "Traceback …", None)
        assert before <= told[2] <= after

    error = ValueError()
    contextvars.copy_context().run(run)
    assert diary.troubles == []


def test_a_token_of_elsewhere_is_trouble_and_the_rest_is_told(crossing: Crossing, diary: Diary) -> None:
    token = contextvars.copy_context().run(current.set, "elsewhere")
    diary.end = (token, lambda *told: diary.said.append(told[:2]))
    begin(crossing)
    assert crossing.end(7, None, None) is not None
    crossing.finish()
    assert diary.said[1:] == [(None, None)]
    assert [type(error) for error in diary.troubles] == [ValueError]


class Ended:
    """What is made for an item, and told how it ended."""

    _item: tuple[Any, ...]
    diary: Diary

    def __init__(self) -> None:
        raise NotImplementedError

    def __call__(self, *told: Any) -> None:
        self.diary.said.append((self._item[:4], *told[:2]))


class Baggage(dict[str, Any]):
    """As OpenTelemetry's: it refuses to be changed."""

    def __setitem__(self, key: str, value: Any) -> None:
        raise ValueError


def says_how(diary: Diary, **other: Any) -> Again:
    return Again(
        **{
            "carrier": dict(CARRIER),
            "unchanged": (({"name": diary}, "name", diary),),
            "context": Baggage(baggage=1),
            "key": "span",
            "ended": Ended,
            "attributes": {"diary": diary},
            **other,
        }
    )


class Observer:
    """Says how the next begin."""

    def __init__(self, says: Any) -> None:
        self.says = says
        self.asked = 0

    def __call__(self, *told: Any) -> Any:
        self.asked += 1
        return current.set("asked"), lambda *told: None, self.says


def test_where_the_observer_has_said_how_the_next_begin_without_it(probe: WorkProbe, diary: Diary) -> None:
    observer = Observer(says_how(diary))
    crossing = probe.crossing(observer, diary.troubles.append, context_var=current)

    def run() -> None:
        for number in range(3):
            before = time.time_ns()
            begin(crossing, age_ns=1_000_000_000)
            after = time.time_ns()
            inside = current.get()
            if probe.way == "native" and number:
                made = inside.pop("span")
                assert (type(inside), inside, type(made)) == (Baggage, {"baggage": 1}, Ended)
                assert made._item[:4] == (add, (1,), "pool", "mp_pool")
                assert made._item[4] >= 1_000_000_000
                assert before <= made._item[5] <= after
            else:
                assert inside == "asked"
            assert crossing.end(7, None, "…") is not None
            assert current.get(None) is None
            crossing.finish()

    contextvars.copy_context().run(run)
    assert diary.troubles == []
    item = (add, (1,), "pool", "mp_pool")
    assert (observer.asked, diary.said) == (
        (1, [(item, None, "…")] * 2) if probe.way == "native" else (3, [])
    )


@pytest.mark.parametrize("change", ["carrier", "value", "name"])
def test_where_something_has_changed_the_observer_is_asked(
    probe: WorkProbe, diary: Diary, change: str
) -> None:
    namespace: dict[str, Any] = {"name": diary}
    observer = Observer(says_how(diary, unchanged=((namespace, "name", diary),)))
    crossing = probe.crossing(observer, diary.troubles.append, context_var=current)

    def run() -> None:
        begin(crossing)
        crossing.end(7, None, None)
        if change == "value":
            namespace["name"] = diary.said
        elif change == "name":
            del namespace["name"]
        begin(crossing, ({**CARRIER, "baggage": "who=me"} if change == "carrier" else CARRIER, 1, "pool"))
        assert current.get() == "asked"
        crossing.end(7, None, None)

    contextvars.copy_context().run(run)
    assert (observer.asked, diary.troubles) == (2, [])


NONSENSE: dict[str, Any] = {
    "carrier": None,
    "unchanged": ((1, 2),),
    "context": (),
    "ended": len,
    "attributes": None,
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_does_not_say_how_is_left_unheard(probe: WorkProbe, diary: Diary, name: str) -> None:
    observer = Observer(says_how(diary, **{name: NONSENSE[name]}))
    crossing = probe.crossing(observer, diary.troubles.append, context_var=current)

    def run() -> None:
        for _ in range(2):
            begin(crossing)
            assert crossing.end(7, None, None) is not None

    contextvars.copy_context().run(run)
    assert (observer.asked, diary.troubles) == (2, [])


class AbstractEnded(abc.ABC):
    @abc.abstractmethod
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    "other", [{"ended": AbstractEnded}, {"attributes": {"_item": 1, "__class__": 1}}, {"key": []}]
)
def test_trouble_in_beginning_so_is_told_and_nothing_is_current(
    probe: WorkProbe, diary: Diary, other: dict[str, Any]
) -> None:
    if probe.way == "pure":
        pytest.skip("it asks the observer each time")
    crossing = probe.crossing(Observer(says_how(diary, **other)), diary.troubles.append, context_var=current)

    def run() -> None:
        begin(crossing)
        crossing.end(7, None, None)
        begin(crossing)
        assert current.get(None) is None
        assert crossing.end(7, None, None) is not None

    contextvars.copy_context().run(run)
    assert [type(error) for error in diary.troubles] == [TypeError]


@pytest.mark.parametrize(("value", "is_asked"), [(None, False), ({}, False), ({"span": 1}, True)])
def test_an_item_that_brings_nothing_asks_the_observer_only_where_something_is_current(
    crossing: Crossing, diary: Diary, value: Any, is_asked: bool
) -> None:
    def run() -> None:
        if value is not None:
            current.set(value)
        begin(crossing, ({}, 1, "pool"))
        assert crossing.end(7, None, None) is not None

    contextvars.copy_context().run(run)
    assert bool(diary.said) is is_asked


def test_without_an_observer_it_is_timed_all_the_same(probe: WorkProbe) -> None:
    crossing = probe.crossing(None, print)
    begin(crossing)
    assert crossing.end(7, None, None) is not None


class TroubleError(Exception):
    pass


def trouble(*args: Any) -> Any:
    raise TroubleError


@pytest.mark.parametrize("place", ["observer", "end", "late", "told with a token"])
def test_trouble_is_told_and_costs_nothing(probe: WorkProbe, diary: Diary, place: str) -> None:
    crossing = probe.crossing(trouble if place == "observer" else diary, diary.troubles.append)
    token = current.set("inside")
    current.reset(token)
    ends: dict[str, Any] = {"end": trouble, "told with a token": (token, trouble)}
    diary.end = ends.get(place, diary.note_end)
    diary.late = trouble
    begin(crossing)
    assert crossing.end(7, None, None) is not None
    crossing.finish()
    assert [type(error) for error in diary.troubles] == [TroubleError]
    assert diary.troubles[0].__traceback__ is not None


@pytest.mark.parametrize(
    "parcel", [(CARRIER, 1), "nonsense", (CARRIER, None, "pool"), (CARRIER, "1", "pool")]
)
def test_a_parcel_that_is_none_is_trouble(crossing: Crossing, diary: Diary, parcel: Any) -> None:
    begin(crossing, parcel)
    assert len(diary.troubles) == 1
    assert crossing.end(7, None, None) is None


def test_what_is_no_mere_exception_passes(crossing: Crossing, diary: Diary) -> None:
    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    diary.end = interrupted
    begin(crossing)
    with pytest.raises(KeyboardInterrupt):
        crossing.end(7, None, None)
    assert diary.troubles == []


# The stations.


class Call:
    def __init__(self, work_id: int, fn: Any, args: Any, kwargs: Any) -> None:
        self.work_id, self.fn, self.args, self.kwargs = work_id, fn, args, kwargs


class Result:
    def __init__(self, work_id: int, exception: Any = None, result: Any = None) -> None:
        self.work_id, self.exception, self.result = work_id, exception, result


def replaced(owner: type, name: str, make: Callable[[Any], Any]) -> Callable[[], None]:
    """Put a station into a subclass of a class that is meant to be patched."""
    station, turn_off = make(vars(owner).get(name))
    setattr(owner, name, station)
    silence: Callable[[], None] = turn_off
    return silence


def class_like(base: type) -> Any:
    own = {name: value for name, value in vars(base).items() if name not in ("__dict__", "__weakref__")}
    return type(base.__name__, (), own)


def test_the_plain_function_leaves_with_its_parcel_beside_it(probe: WorkProbe, crossing: Crossing) -> None:
    call = class_like(Call)
    turn_off = replaced(call, "__init__", crossing.unwrap)
    sent = probe.pool("pool", "process").send(add, (1,), CARRIER.copy)
    one = call(3, sent, (1,), {"other": 2})
    assert vars(one) == {"work_id": 3, "fn": add, "args": (1,), "kwargs": {"other": 2}, KEY: sent.parcel}
    assert vars(call(3, add, (1,), {})) == {"work_id": 3, "fn": add, "args": (1,), "kwargs": {}}
    turn_off()
    assert vars(call(3, sent, (1,), {})) == {"work_id": 3, "fn": add, "args": (1,), "kwargs": {}}
    with pytest.raises(TypeError, match="__init__"):
        call(1)


def test_an_item_that_arrives_begins(crossing: Crossing, diary: Diary) -> None:
    call = class_like(Call)
    turn_off = replaced(call, "__setstate__", crossing.arrive)
    state = {"work_id": 7, "fn": add, "args": (1,), "kwargs": {}}
    for parcel in ({KEY: (CARRIER, 1, "pool")}, {}):
        one = call.__new__(call)
        one.__setstate__({**state, **parcel})
        assert vars(one) == state
        assert (crossing.end(7, None, None) is not None) is bool(parcel)
    assert [said[0:5] for said in diary.said] == [(add, (1,), CARRIER, "pool", "process"), (None, None)]
    turn_off()
    one.__setstate__({**state, KEY: (CARRIER, 1, "pool")})
    assert vars(one) == state
    assert crossing.end(7, None, None) is None


def test_a_setstate_that_was_there_is_called(crossing: Crossing) -> None:
    call = class_like(Call)
    call.__setstate__ = lambda self, state: vars(self).update(state, theirs=1)
    replaced(call, "__setstate__", crossing.arrive)
    one = call.__new__(call)
    one.__setstate__({"work_id": 7, "fn": add, "args": (1,), KEY: (CARRIER, 1, "pool")})
    assert vars(one) == {"work_id": 7, "fn": add, "args": (1,), "theirs": 1}
    assert crossing.end(7, None, None) is not None


def test_a_result_has_its_durations_beside_it(crossing: Crossing, diary: Diary) -> None:
    result = class_like(Result)
    turn_off = replaced(result, "__init__", crossing.answer)
    begin(crossing)
    error = ValueError()
    failed = result(7, exception=SimpleNamespace(exc=error, tb="Traceback …"))
    assert (failed.work_id, getattr(failed, KEY)) == (7, crossing.end(7, None, None))
    assert diary.said[1:] == [(error, "Traceback …")]
    assert vars(result(8, result=1)) == {"work_id": 8, "exception": None, "result": 1}
    turn_off()
    assert not hasattr(result(7), KEY)
    with pytest.raises(TypeError, match="work_id"):
        result()


def test_what_is_left_is_done_when_the_result_is_out(crossing: Crossing, diary: Diary) -> None:
    def send_back(*args: Any, **kwargs: Any) -> None:
        diary.said.append((args, kwargs))
        if not kwargs:
            raise TroubleError

    station, _ = crossing.send_back(send_back)
    diary.late = diary.note_late
    for kwargs in ({"result": 1}, {}):
        begin(crossing)
        crossing.end(7, None, None)
        diary.said.clear()
        if kwargs:
            station("queue", 7, **kwargs)
        else:
            with pytest.raises(TroubleError):
                station("queue", 7)
        assert diary.said == [(("queue", 7), kwargs), "late"]
    assert station.__wrapped__ is send_back
    assert (station.__module__, station.__name__) == (__name__, "send_back")


@pytest.mark.parametrize("error", [None, ValueError()])
def test_a_result_that_is_taken_ends_its_item(
    probe: WorkProbe, crossing: Crossing, diary: Diary, error: Any
) -> None:
    class Manager:
        def process_result_item(self, result: Any) -> None:
            taken.append(self.pending_work_items.pop(getattr(result, "work_id", None), None))

        pending_work_items: dict[Any, Any]

    taken: list[Any] = []
    turn_off = replaced(Manager, "process_result_item", crossing.take)
    manager = Manager()
    pool = probe.pool("pool", "process")
    result = Result(7, error)
    setattr(result, KEY, (1, 2))
    sent = pool.send(add, (1,), dict)
    for function in (sent, add):
        manager.pending_work_items = {7: SimpleNamespace(fn=function)}
        manager.process_result_item(result)
    manager.process_result_item(4711)  # a worker that left
    (row,) = probe.read()
    assert (row.submitted, row.finished, dict(row.failed)) == (
        (1, 1, {}) if error is None else (1, 0, {"ValueError": 1})
    )
    assert (row.queue_times.sum_ns, row.queue_times.count) == (1, 1)
    assert len(taken) == 3

    unknown = pool.send(add, (1,), dict)
    manager.pending_work_items = {7: SimpleNamespace(fn=unknown)}
    setattr(result, KEY, ("1", "2"))
    manager.process_result_item(result)
    assert [type(trouble) for trouble in diary.troubles] == [TypeError]

    turn_off()
    manager.pending_work_items = {7: SimpleNamespace(fn=unknown)}
    setattr(result, KEY, (1, 2))
    manager.process_result_item(result)
    assert probe.read()[0].queue_times.count == 1
    assert len(taken) == 5
