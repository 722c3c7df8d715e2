"""What programs do now: who is asked, what is made of what they answer, and for how long it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.console import live
from otel_concurrency.console.queries.scope import Scope
from otel_concurrency.endpoints.client import AskError
from otel_concurrency.endpoints.directory import Entry
from otel_concurrency.snapshot import Snapshot

EVERY = Scope(0, 1)


class Asked:
    """A program that answers what it was given, and counts how often it was asked."""

    def __init__(self, service: str, answer: Callable[[], Any]) -> None:
        self.entry = Entry(7, f"http://127.0.0.1:1/{service}", service, f"{service}-1")
        self.url = self.entry.url
        self.count = 0
        self._answer = answer

    def ask(self, route: str, **query: object) -> Any:
        self.count += 1
        return self._answer()


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    live._answers.clear()
    yield
    live._answers.clear()


def refuse() -> Any:
    raise AskError("it wants a token", 401)


def test_each_program_tells_what_it_does_or_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Snapshot(pid=7, task_count=3)
    answers = {"shop": snapshot.to_data, "refuses": refuse, "strange": lambda: {"tasks": 3}}
    programs = [Asked(service, answer) for service, answer in answers.items()]
    monkeypatch.setattr(live, "programs", lambda: programs)

    told = {it.service: it for it in live.live_programs(EVERY)}
    assert list(told) == ["refuses", "shop", "strange"]
    assert (told["shop"].snapshot, told["shop"].problem) == (snapshot, "")
    assert (told["refuses"].snapshot, told["refuses"].problem) == (None, "it wants a token")
    assert told["strange"].snapshot is None


def test_only_who_is_looked_at_is_asked_and_not_for_every_tab(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [Asked(service, Snapshot().to_data) for service in ("shop", "warehouse")]
    monkeypatch.setattr(live, "programs", lambda: programs)
    monkeypatch.setattr(live, "FRESH_S", 3600.0)

    for _ in range(2):
        found = live.live_programs(Scope(0, 1, services=("shop",)))
        assert [it.service for it in found] == ["shop"]
    assert live.live_programs(Scope(0, 1, instances=("nobody",))) == []
    assert [program.count for program in programs] == [1, 0]
