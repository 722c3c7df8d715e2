from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from otel_concurrency.endpoints.client import NotFoundError, find, programs
from otel_concurrency.endpoints.directory import Directory, folder, is_there, own_entry


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    (tmp_path / "ours").mkdir(mode=0o700)
    return Directory(tmp_path / "ours" / "programs")


def test_what_is_announced_is_found_until_it_is_withdrawn(directory: Directory) -> None:
    entry = own_entry("http://127.0.0.1:9464", service="shop", instance="pod-1")
    directory.announce(entry)
    directory.announce(entry)
    assert directory.entries() == [entry]
    assert find(os.getpid(), directory).url == entry.url
    assert find(entry.url, directory).entry == entry
    assert find("127.0.0.1:9464", directory).entry == entry
    assert find(":9464", directory).entry == entry
    directory.withdraw(os.getpid())
    directory.withdraw(os.getpid())
    assert directory.entries() == []
    with pytest.raises(NotFoundError, match="OTEL_PYTHON_CONCURRENCY_HTTP_PORT"):
        find(os.getpid(), directory)
    assert find("localhost:1234", directory).url == "http://localhost:1234"


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_only_the_user_can_write_there(directory: Directory) -> None:
    directory.announce(own_entry("http://127.0.0.1:1"))
    [file] = directory.path.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (directory.path, file)] == [0o700, 0o600]
    directory.path.chmod(0o777)
    with pytest.raises(PermissionError):
        directory.announce(own_entry("http://127.0.0.1:1"))
    assert programs(directory) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links are POSIX's")
def test_a_link_that_somebody_has_laid_is_not_followed(directory: Directory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    directory.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        directory.announce(own_entry("http://127.0.0.1:1"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_left_of_a_process_that_is_gone_is_removed(directory: Directory) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    own = own_entry("http://127.0.0.1:2")
    directory.announce(own)
    directory.announce(replace(own, pid=gone.pid, started=""))
    (directory.path / "77.json").write_text("{ not JSON")
    assert directory.entries() == [own]
    assert [file.name for file in directory.path.iterdir()] == [f"{own.pid}.json"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nobody tells when a process began")
def test_a_process_that_got_the_id_later_is_another() -> None:
    own = own_entry("http://127.0.0.1:3")
    assert is_there(own)
    assert not is_there(replace(own, started="1"))


def test_where_the_folder_is(tmp_path: Path) -> None:
    assert folder({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "otel-concurrency" / "programs"
    without = folder({"XDG_RUNTIME_DIR": str(tmp_path / "nowhere")})
    assert without.parent.name.startswith("otel-concurrency-")
