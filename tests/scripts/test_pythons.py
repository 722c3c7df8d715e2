"""`scripts/pythons`: finding interpreters, getting them, running commands with them."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pythons"
THIS = ".".join(platform.python_version_tuple()[:2])
BASE = Path(sys._base_executable)  # type: ignore[attr-defined]


def make_python(folder: Path, release: str, *, lacks: tuple[str, ...] = ()) -> Path:
    """Write an executable that answers the probe as a CPython of that release would."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"python{'.'.join(release.split('.')[:2])}"
    answer = json.dumps(["CPython", release, str(path), lacks])
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def run_script(*words: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `scripts/pythons`."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environ},
        check=False,
    )


class TestFind:
    """Where interpreters are looked for, and which one is taken."""

    def test_a_shim_that_does_not_start_is_passed_over(self, pythons: ModuleType, tmp_path: Path) -> None:
        """pyenv puts a shim for every version on PATH; most of them only say that they are not set."""
        shim = tmp_path / "shims" / "python3.97"
        shim.parent.mkdir()
        shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
        shim.chmod(0o755)
        real = make_python(tmp_path / "bin", "3.97.1")
        found = pythons.find("3.97", {"PATH": f"{shim.parent}:{real.parent}", "PYENV_ROOT": str(tmp_path)})
        assert found == pythons.Interpreter("3.97", "3.97.1", str(real), None, "PATH", ())

    def test_a_virtual_environment_is_no_interpreter(self, pythons: ModuleType, tmp_path: Path) -> None:
        """Its packages are somebody's."""
        make_python(tmp_path / "env" / "bin", "3.97.1")
        (tmp_path / "env" / "pyvenv.cfg").touch()
        environ = {"PATH": str(tmp_path / "env" / "bin"), "PYENV_ROOT": str(tmp_path)}
        assert pythons.find("3.97", environ) is None

    def test_the_newest_release_of_pyenv_is_taken(self, pythons: ModuleType, tmp_path: Path) -> None:
        """3.97.10 is newer than 3.97.9, and a 3.97-dev or a virtual environment of pyenv's is no release."""
        for release in ("3.97.9", "3.97.10"):
            make_python(tmp_path / "versions" / release / "bin", release)
        make_python(tmp_path / "versions" / "3.97-dev" / "bin", "3.97.11")
        found = pythons.find("3.97", {"PATH": "", "PYENV_ROOT": str(tmp_path)})
        assert (found.release, found.source) == ("3.97.10", "pyenv")

    def test_a_whole_one_goes_before_a_nearer_one(self, pythons: ModuleType, tmp_path: Path) -> None:
        """Debian splits the test suite and the headers off; pyenv's build has both."""
        make_python(tmp_path / "bin", "3.97.8", lacks=("tests", "headers"))
        make_python(tmp_path / "versions" / "3.97.2" / "bin", "3.97.2")
        environ = {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path)}
        assert pythons.find("3.97", environ).release == "3.97.2"

    def test_what_is_missing_in_the_only_one_is_told(self, pythons: ModuleType, tmp_path: Path) -> None:
        """`list` shows it in words."""
        make_python(tmp_path / "bin", "3.97.8", lacks=("tests",))
        found = pythons.find("3.97", {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path)})
        assert str(found) == f"3.97.8   PATH   {tmp_path}/bin/python3.97  (without tests)"

    def test_the_running_interpreter_is_found(self, pythons: ModuleType, tmp_path: Path) -> None:
        """The probe itself, on a real CPython."""
        (tmp_path / f"python{THIS}").symlink_to(BASE)
        found = pythons._examine(str(tmp_path / f"python{THIS}"), "PATH", None)
        assert (found.version, found.release) == (THIS, platform.python_version())

    def test_a_pyenv_that_cannot_be_read_is_passed_over_with_a_sentence(self, tmp_path: Path) -> None:
        """Said once, however many versions are looked for; what PATH has is still found."""
        make_python(tmp_path / "bin", "3.97.1")
        unreadable = str(tmp_path / ("x" * 300))  # root may read what others may not, but no such name
        done = run_script(
            "list",
            PATH=str(tmp_path / "bin"),
            PYENV_ROOT=unreadable,
            OTEL_CONCURRENCY_CACHE=str(tmp_path / "cache"),  # what is in the real one is not asked about
        )
        assert (done.returncode, done.stderr) == (
            0,
            f"pythons: passing over pyenv: {unreadable} cannot be read (File name too long)\n",
        )

    def test_a_half_made_root_does_not_count(self, pythons: ModuleType, tmp_path: Path) -> None:
        """A root without its marker, or with half of one, was left by an interrupted `get`."""
        from _pythons.root import MARKER, made_roots, write_marker

        for name, text in (("debian-none", None), ("debian-torn", '{"versions": {"3.97"')):
            marker = tmp_path / name / MARKER
            marker.parent.mkdir(parents=True)
            if text is not None:
                marker.write_text(text)
        (tmp_path / "debian-whole" / "etc").mkdir(parents=True)
        write_marker(tmp_path / "debian-whole", "whole", {"3.97": "3.97.1"})
        assert made_roots(tmp_path) == [tmp_path / "debian-whole"]
        environ = {"PATH": "", "PYENV_ROOT": str(tmp_path), "OTEL_CONCURRENCY_CACHE": str(tmp_path)}
        candidates = list(pythons._candidates("3.97", environ))
        assert candidates == [("/usr/bin/python3.97", "cache", tmp_path / "debian-whole")]

    @pytest.mark.parametrize(
        ("version", "message"),
        [
            ("three", "'three' is no Python version; write it like 3.14"),
            ("3.14", "`scripts/pythons get 3.14` gets it"),
            ("3.97", "Python 3.97 is neither on PATH nor under pyenv nor in the cache; it is not supported"),
        ],
    )
    def test_a_missing_one_says_how_to_get_it(
        self, pythons: ModuleType, tmp_path: Path, version: str, message: str
    ) -> None:
        """Each refusal names the way out."""
        environ = {"PATH": "", "PYENV_ROOT": str(tmp_path), "OTEL_CONCURRENCY_CACHE": str(tmp_path)}
        with pytest.raises(pythons.SetupError, match=message.replace("(", r"\(")):
            pythons.need(version, environ)


class TestGet:
    """From the mirror to a finished root."""

    @pytest.fixture
    def mirror(self, tmp_path: Path) -> str:
        """A mirror of three suites, as files."""
        import lzma

        architecture = subprocess.run(
            ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
        )
        carried = {"stable": ["3.13"], "testing": ["3.13", "3.14"], "unstable": ["3.13", "3.14", "3.15"]}
        for suite, versions in carried.items():
            folder = tmp_path / "dists" / suite / "main" / f"binary-{architecture.stdout.strip()}"
            folder.mkdir(parents=True)
            names = [
                name
                for version in versions
                for name in (
                    f"python{version}",
                    f"python{version}-dev",
                    f"python{version}-venv",
                    f"libpython{version}-testsuite",
                )
            ]
            if suite == "testing":
                names += [
                    "python3.15",
                    "python3.15-dev",
                    "python3.15-venv",
                ]  # its test suite is still missing
            index = "".join(f"Package: {name}\nVersion: 1\n\n" for name in names)
            (folder / "Packages.xz").write_bytes(lzma.compress(index.encode()))
            (tmp_path / "dists" / suite / "Release").write_text(f"Suite: {suite}\nCodename: code-{suite}\n")
        return tmp_path.as_uri()

    needs_dpkg = pytest.mark.skipif(not Path("/usr/bin/dpkg").exists(), reason="getting needs Debian's tools")

    @needs_dpkg
    def test_the_calmest_suite_that_has_everything_is_taken(self, mirror: str) -> None:
        """A version whose test suite has not arrived in `testing` comes from `unstable`."""
        from _pythons.suite import SUITES, choose_suites

        chosen = choose_suites(mirror, SUITES, ["3.14", "3.15"])
        assert chosen == {"code-testing": ["3.14"], "code-unstable": ["3.15"]}

    @needs_dpkg
    def test_a_version_that_no_suite_has_is_refused(self, mirror: str) -> None:
        """The refusal names the packages that were looked for."""
        from _pythons.root import SetupError
        from _pythons.suite import SUITES, choose_suites

        with pytest.raises(SetupError, match=r"has all of python3\.16, python3\.16-venv"):
            choose_suites(mirror, SUITES, ["3.16"])

    @needs_dpkg
    def test_a_mirror_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        """Without network the message says so, in one line."""
        from _pythons.root import SetupError
        from _pythons.suite import choose_suites

        with pytest.raises(SetupError, match=r"cannot read file:.*stable.*needs the network"):
            choose_suites(tmp_path.as_uri(), ["stable"], ["3.14"])

    def test_the_mirror_is_the_machines_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Debian's main archive among what apt knows; neither a vendor's nor the security archive."""
        from _pythons import suite

        listed = (
            "Vendor main stable http://vendor.example/apt/\n"
            "Debian main some-security http://mirror.example/debian-security/\n"
            "Debian main some-updates http://updates.example/debian/\n"
            "Debian main some http://mirror.example/debian/\n"
        )
        monkeypatch.setattr(suite, "_output", lambda *command: listed)
        monkeypatch.setattr(suite.shutil, "which", lambda name: f"/usr/bin/{name}")
        assert suite.machine_mirror() == "http://mirror.example/debian"

    def test_getting_needs_root(
        self, pythons: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Anybody else hears it before anything is downloaded."""
        monkeypatch.setattr(pythons.os, "geteuid", lambda: 1000)
        environ = {"PATH": "", "PYENV_ROOT": str(tmp_path), "OTEL_CONCURRENCY_CACHE": str(tmp_path)}
        with pytest.raises(pythons.SetupError, match=r"getting Python 3\.14 needs root"):
            pythons.get(["3.14"], environ, mirror=None, suite=None)

    def test_what_is_here_is_not_got_again(
        self, pythons: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No root and no network are needed then."""
        make_python(tmp_path / "bin", "3.14.99")
        environ = {
            "PATH": str(tmp_path / "bin"),
            "PYENV_ROOT": str(tmp_path),
            "OTEL_CONCURRENCY_CACHE": str(tmp_path),
        }
        pythons.get(["3.14"], environ, mirror="file:///nowhere", suite=None)
        assert capsys.readouterr().out == f"3.14  3.14.99  PATH   {tmp_path}/bin/python3.14\n"
        assert not (tmp_path / "pythons.lock").exists()

    def test_a_half_made_root_is_made_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An install that fails leaves no marker; the next `get` starts from nothing."""
        from _pythons import suite
        from _pythons.root import SetupError, read_marker

        root, events = tmp_path / "debian-some", []

        def unpack(root: Path, codename: str, mirror: str, environ: object) -> None:
            assert not root.exists()
            (root / "etc/apt/apt.conf.d").mkdir(parents=True)
            events.append("unpacked")

        def install(root: Path, words: list[str], environ: object, log: Path) -> None:
            if words[:1] == ["apt-get"] and "install" in words:
                events.append("installed")
                if events.count("installed") == 1:
                    raise SetupError("the network went away")

        def ask(root: Path, words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(words, 0, "Python 3.14.99\n", "")

        monkeypatch.setattr(suite, "_unpack_suite", unpack)
        monkeypatch.setattr(suite, "_run_logged", install)
        monkeypatch.setattr(suite, "run_in", ask)
        with pytest.raises(SetupError):
            suite.fill_root(root, "some", "http://mirror.example/debian", ["3.14"], {})
        assert read_marker(root) == {}
        suite.fill_root(root, "some", "http://mirror.example/debian", ["3.14"], {})
        assert read_marker(root)["versions"] == {"3.14": "3.14.99"}
        suite.fill_root(root, "some", "http://mirror.example/debian", ["3.15"], {})
        assert events == ["unpacked", "installed", "unpacked", "installed", "installed"]
        assert read_marker(root)["versions"] == {"3.14": "3.14.99", "3.15": "3.14.99"}

    def test_two_at_once_wait_for_each_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second says that it waits, and goes on when the first is done."""
        from _pythons import suite

        waits, has_lock = threading.Event(), threading.Event()
        monkeypatch.setattr(suite, "say", lambda line: waits.set())

        def second() -> None:
            with suite.locked(tmp_path):
                has_lock.set()

        thread = threading.Thread(target=second)
        with suite.locked(tmp_path):
            thread.start()
            assert waits.wait(30)
            assert not has_lock.is_set()
        thread.join(30)
        assert has_lock.is_set()

    def test_certificates_and_pip_settings_follow_the_machine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A changed bundle is copied again, an unchanged one is left alone."""
        from _pythons import root as module

        bundle = tmp_path / "etc" / "bundle.pem"
        bundle.parent.mkdir()
        bundle.write_text("one")
        monkeypatch.setattr(module, "SYSTEM_FOLDERS", {bundle.parts[1]})
        monkeypatch.setattr(module, "MACHINE_FILES", ())
        copy = tmp_path / "root" / bundle.relative_to("/")
        module.copy_machine_files(tmp_path / "root", {"PIP_CERT": str(bundle)})
        first = copy.stat().st_ino
        module.copy_machine_files(tmp_path / "root", {"PIP_CERT": str(bundle)})
        assert (copy.read_text(), copy.stat().st_ino) == ("one", first)
        bundle.write_text("two")
        module.copy_machine_files(tmp_path / "root", {"PIP_CERT": str(bundle)})
        assert copy.read_text() == "two"


def find_root() -> str | None:
    """Return a version that lives in the cache here, None where none was got or none can be entered."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return None
    listed = json.loads(run_script("list", "--json").stdout)
    return next((version for version, found in listed.items() if found and found["root"]), None)


class TestRun:
    """A command keeps what is its own: exit code, standard input, signals, folder."""

    @pytest.fixture(params=["machine", "root"])
    def version(self, request: pytest.FixtureRequest) -> str:
        """An interpreter of the machine, and one in a root."""
        found = THIS if request.param == "machine" else find_root()
        if found is None or (request.param == "machine" and run_script("which", THIS).returncode != 0):
            pytest.skip("no interpreter here lives in a root of its own; as root: scripts/pythons get 3.14")
        return found

    def test_the_interpreter_runs_in_place(self, version: str, tmp_path: Path) -> None:
        """`python` is the version asked for, the folder and standard input are the caller's."""
        program = """if True:
            import os, sys
            print(*sys.version_info[:2], sep=".")
            print(os.getcwd())
            print(sys.stdin.read())
        """
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "run", version, "--", "python", "-c", program],
            input="hello",
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines() == [version, str(tmp_path), "hello"]

    def test_the_exit_code_is_the_commands(self, version: str) -> None:
        """And an option of the command is not taken for one of ours."""
        assert run_script("run", version, "--", "sh", "-c", "exit 7").returncode == 7

    def test_a_signal_reaches_the_command(self, version: str) -> None:
        """The process is the command itself: what is sent to it arrives, and how it ended is seen."""
        program = "import sys, signal; print('up', flush=True); signal.pause()"
        words = [sys.executable, str(SCRIPT), "run", version, "--", "python", "-c", program]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == -signal.SIGTERM

    def test_nothing_stays_mounted(self, version: str) -> None:
        """The mounts are the command's own; the machine's table is as it was."""
        before = Path("/proc/self/mounts").read_text() if sys.platform == "linux" else ""
        assert run_script("run", version, "--", "true").returncode == 0
        assert (Path("/proc/self/mounts").read_text() if sys.platform == "linux" else "") == before

    def test_settings_of_pip_and_proxies_pass(self, version: str) -> None:
        """What would mislead another interpreter does not."""
        program = "import os; print(os.environ.get('PIP_INDEX_URL'), os.environ.get('PYTHONHOME'))"
        done = run_script("run", version, "--", "python", "-c", program, PIP_INDEX_URL="http://index.example")
        assert done.stdout == "http://index.example None\n"

    def test_a_missing_command_is_told_in_a_line(self, version: str) -> None:
        """With the exit code of a shell."""
        done = run_script("run", version, "--", "no-such-command")
        assert (done.returncode, done.stdout) == (127, "")
        assert done.stderr.startswith(
            f"pythons: cannot run no-such-command with Python {version}: No such file"
        )


def test_a_version_that_is_not_here_ends_with_127(tmp_path: Path) -> None:
    """Both `which` and `run` say how to get it."""
    environ = {"PYENV_ROOT": str(tmp_path), "OTEL_CONCURRENCY_CACHE": str(tmp_path), "PATH": str(tmp_path)}
    for words in (("which", "3.14"), ("run", "3.14", "--", "true")):
        done = run_script(*words, **environ)
        assert (done.returncode, done.stdout) == (127, "")
        assert "`scripts/pythons get 3.14` gets it" in done.stderr


def test_a_root_that_cannot_be_entered_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without the right to mount: the reason comes through from the child process."""
    from _pythons import root as module

    def refuse(function: str, *arguments: object) -> int:
        return -1

    monkeypatch.setattr(module, "_libc", refuse)
    with pytest.raises(module.SetupError, match="allows no mount namespace"):
        module.run_in(Path("/nowhere"), ["true"], capture_output=True)
