"""Redis comes with the build where it can, and the build goes on where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from _stack import redis


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A machine of root's with apt-get, no Redis, and no package index yet."""
    commands: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], **_: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=100 if len(commands) == 1 else 0)

    monkeypatch.setattr(shutil, "which", lambda name: None if name == "redis-server" else f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_what_is_there_is_left_alone(ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    told: list[str] = []
    assert redis.install_redis(told.append)
    assert (ran, told) == ([], [])


def test_a_machine_without_an_index_gets_one_first(ran: list[tuple[str, ...]]) -> None:
    told: list[str] = []
    assert redis.install_redis(told.append)
    assert [command[:2] + command[-1:] for command in ran] == [
        ("apt-get", "-qqy", "redis-server"),
        ("apt-get", "-q", "update"),
        ("apt-get", "-qqy", "redis-server"),
    ]
    assert told == ["installing the Debian package redis-server (apt-get install redis-server)"]


def test_who_is_not_root_is_told_what_will_skip(
    ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    told: list[str] = []
    assert not redis.install_redis(told.append)
    assert ran == []
    assert len(told) == 1
    assert told[0].startswith("redis-server is missing")
