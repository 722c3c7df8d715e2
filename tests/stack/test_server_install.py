"""Redis and PostgreSQL come with the build where they can, and the build goes on where they cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _servers as servers
import pytest


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """A machine of root's with apt-get, no Redis, no PostgreSQL, and no package index yet."""
    commands: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], **_: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=100 if len(commands) == 1 else 0)

    monkeypatch.setattr(shutil, "which", lambda name: None if name == "redis-server" else f"/usr/bin/{name}")
    monkeypatch.setattr(servers, "_POSTGRES", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_what_is_there_is_left_alone(
    ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "15" / "bin").mkdir(parents=True)
    (tmp_path / "15" / "bin" / "postgres").touch()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    told: list[str] = []
    assert servers.install_servers(told.append)
    assert (ran, told) == ([], [])


def test_a_machine_without_an_index_gets_one_first(ran: list[tuple[str, ...]]) -> None:
    told: list[str] = []
    assert servers.install_servers(told.append)
    assert [command[:2] + command[4:] for command in ran] == [
        ("apt-get", "-qqy", "redis-server", "postgresql"),
        ("apt-get", "-q"),
        ("apt-get", "-qqy", "redis-server", "postgresql"),
    ]
    assert told == ["installing Debian's redis-server and postgresql (apt-get install)"]


def test_who_is_not_root_is_told_what_will_skip(
    ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    told: list[str] = []
    assert not servers.install_servers(told.append)
    assert ran == []
    assert len(told) == 1
    assert told[0].startswith("redis-server and postgresql: missing")
