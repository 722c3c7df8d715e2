"""Forkserver and resource tracker are told from processes that run a program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_concurrency.hooks.processes.helper_processes import helper_of, is_forkserver, is_helper_process

FORKSERVER = "from multiprocessing.forkserver import main; main(3, 4, ['__main__'], **{'sys_path': []})"


@pytest.mark.parametrize(
    ("command_line", "kind"),
    [
        (["python", "-c", FORKSERVER], "forkserver"),
        (["python", "-X", "dev", "-E", "-c", FORKSERVER], "forkserver"),
        (
            ["python", "-c", f"import sys; {FORKSERVER[:-1]}, sys_argv=sys.argv[1:])", "-c", "an argument"],
            "forkserver",
        ),
        (
            ["python", "-c", "from multiprocessing.resource_tracker import main;main(5)"],
            "resource_tracker",
        ),
        (["python", "-c", "from billiard.forkserver import main; main(3, 4, [])"], "forkserver"),
        (["python", "-c", "from billiard.semaphore_tracker import main;main(5)"], "semaphore_tracker"),
        (["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(3)"], None),
        (["python", "-c", "print('from multiprocessing.forkserver import main; main(3)')"], None),
        (["python", "program.py", "-c", "an argument"], None),
        (["python", "-c"], None),
        (["python"], None),
        ([], None),
    ],
)
def test_a_command_line_tells_which_helper_it_starts(command_line: list[str], kind: str | None) -> None:
    package = "billiard" if "billiard" in " ".join(command_line) else "multiprocessing"
    assert helper_of(command_line) == (kind and (package, kind))


def test_this_process_is_none() -> None:
    assert (is_helper_process(), is_forkserver()) == (False, False)


@pytest.mark.skipif(sys.platform == "win32", reason="there is neither fork nor forkserver")
def test_real_helpers_know_themselves_and_their_children_know_better(tmp_path: Path) -> None:
    """What the standard library starts, on this version; asked from `sitecustomize`, as the distro asks."""
    (site := tmp_path / "site").mkdir()
    (site / "sitecustomize.py").write_text(
        "import os\n"
        "from otel_concurrency.hooks.processes.helper_processes import _helper\n"
        "from otel_concurrency.hooks.processes.helper_processes import is_forkserver, is_helper_process\n"
        "def tell(where):\n"
        "    with open(os.environ['TOLD'], 'a') as told:\n"
        "        told.write(f'{where} {_helper and _helper[1]} {is_helper_process()} {is_forkserver()}\\n')\n"
        "tell('start')\n"
        "os.register_at_fork(after_in_child=lambda: tell('forked'))\n"
    )
    (program := tmp_path / "program.py").write_text(
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('forkserver').Process(target=print)\n"
        "    child.start()\n"
        "    child.join()\n"
    )
    told = tmp_path / "told"
    path = os.pathsep.join((str(site), *filter(None, sys.path)))
    environ = os.environ | {"PYTHONPATH": path, "TOLD": str(told)}
    subprocess.run([sys.executable, str(program)], env=environ, check=True, timeout=60)
    assert sorted(told.read_text().splitlines()) == [
        "forked forkserver False False",
        "start None False False",
        "start forkserver True True",
        "start resource_tracker True False",
    ]
