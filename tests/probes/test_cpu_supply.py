"""Throttling of the own cgroup, from files as kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_concurrency.probes.cpu_supply import CpuSupply

V2 = "usage_usec 5\nnr_periods 9\nnr_throttled {}\nthrottled_usec {}\n"
V1 = "nr_periods 9\nnr_throttled {}\nthrottled_time {}\n"


def supply(tmp_path: Path, groups: str, file: str, text: str) -> tuple[CpuSupply, Path]:
    """A supply that reads these files, and the path of its `cpu.stat`."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cgroup").write_text(groups)
    stat = tmp_path / "cgroup" / file
    stat.parent.mkdir(parents=True)
    stat.write_text(text)
    return CpuSupply(str(tmp_path / "proc"), mount=str(tmp_path / "cgroup")), stat


@pytest.mark.parametrize(
    ("groups", "file"),
    [("0::/pods/a\n", "pods/a/cpu.stat"), ("0::/\n", "cpu.stat"), ("0::/outside/of/here\n", "cpu.stat")],
    ids=["own folder", "namespace", "path of the host"],
)
def test_v2_counts_from_when_we_came(tmp_path: Path, groups: str, file: str) -> None:
    read, stat = supply(tmp_path, groups, file, V2.format(1, 700))
    assert read.throttled_ns() == 0
    stat.write_text(V2.format(2, 750))
    assert read.throttled_ns() == 50_000


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_v1_counts_from_when_we_came(tmp_path: Path, folder: str) -> None:
    read, stat = supply(
        tmp_path, f"3:memory:/x\n2:{folder}:/pods/a\n", f"{folder}/pods/a/cpu.stat", V1.format(1, 70)
    )
    stat.write_text(V1.format(1, 90))
    assert read.throttled_ns() == 20


def test_a_forked_child_counts_from_its_own_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, stat = supply(tmp_path, "0::/\n", "cpu.stat", V2.format(1, 1))
    stat.write_text(V2.format(1, 5))
    assert read.throttled_ns() == 4_000
    monkeypatch.setattr("otel_concurrency.probes.cpu_supply.os.getpid", lambda: -1)
    assert read.throttled_ns() == 0


@pytest.mark.parametrize("text", ["usage_usec 5\n", ""], ids=["no quota", "empty"])
def test_without_numbers_nobody_knows(tmp_path: Path, text: str) -> None:
    read, _ = supply(tmp_path, "0::/\n", "cpu.stat", text)
    assert read.throttled_ns() is None


def test_without_proc_nobody_knows(tmp_path: Path) -> None:
    assert CpuSupply(str(tmp_path / "nowhere"), mount=str(tmp_path)).throttled_ns() is None
