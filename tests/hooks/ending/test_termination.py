"""SIGTERM at its default action. Programs of their own, since each of them ends by it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from unittest.mock import ANY

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

HOOK = """
    import asyncio, os, signal, sys, threading, time
    from otel_concurrency.hooks.ending import termination
    from otel_concurrency.hooks.ending.termination import TerminationHook

    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def hook(before=lambda: say("before"), needed=True, busy=(), within_s=None):
        in_background = lambda name: say("in background:", name)
        made = TerminationHook(lambda name: before(), lambda: needed, in_background, busy, within_s)
        made.install()
        return made

    def kill():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)  # handlers run between two instructions
"""


def ended(program: str) -> tuple[int, str, str]:
    source = textwrap.dedent(HOOK) + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


KILLED = -signal.SIGTERM


def test_we_are_called_and_the_process_ends_by_the_signal() -> None:
    assert ended("hook().install(); kill(); say('alive')") == (KILLED, "before\n", "")


def test_we_are_not_called_where_it_is_not_needed() -> None:
    assert ended("hook(needed=False); kill(); say('alive')") == (KILLED, "", "")


@pytest.mark.parametrize("trouble", ["ValueError", "KeyboardInterrupt", "SystemExit"])
def test_the_process_ends_whatever_happens_to_us(trouble: str) -> None:
    program = f"""
        def fail():
            raise {trouble}

        hook(fail)
        kill()
        say("alive")
    """
    assert ended(program) == (KILLED, "", "")


def test_a_second_signal_ends_the_process_at_once() -> None:
    assert ended("hook(lambda: (say('before'), kill(), say('alive'))); kill()") == (KILLED, "before\n", "")


def test_everybody_else_sees_the_default() -> None:
    program = """
        bare = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        hook()
        say((signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == bare)
        say(signal.signal(signal.SIGTERM, signal.SIG_IGN) is signal.SIG_DFL)
        say(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
        kill()
        say(signal.signal(15, 0) is signal.SIG_IGN)
        say(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.signal.__name__)
        kill()
    """
    assert ended(program) == (KILLED, "True\nTrue\nTrue\nTrue\nTrue signal\nbefore\n", "")


def test_a_simulated_signal_does_nothing_at_the_default_action() -> None:
    """As without us: `interrupt_main` calls a handler of Python's, or nobody."""
    program = """
        import _thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        made = hook()
        _thread.interrupt_main()
        _thread.interrupt_main(signal.SIGTERM)
        time.sleep(0.001)
        say("alive")
        for wrong in (1000000, "x"):
            try:
                _thread.interrupt_main(wrong)
            except (TypeError, ValueError) as error:
                say(type(error).__name__)
        signal.signal(signal.SIGINT, lambda signum, frame: say("theirs"))
        _thread.interrupt_main()
        time.sleep(0.001)
        made.remove()
        say(_thread.interrupt_main is interrupt_main)
    """
    program = "import _thread; interrupt_main = _thread.interrupt_main\n" + textwrap.dedent(program)
    assert ended(program) == (0, "alive\nValueError\nTypeError\ntheirs\nTrue\n", "")


def test_a_handler_of_the_program_has_the_signal_alone() -> None:
    program = """
        hook()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        kill()
    """
    assert ended(program) == (7, "", "")


def test_a_handler_that_was_there_before_us_stays() -> None:
    program = """
        signal.signal(signal.SIGTERM, lambda *_: say("theirs"))
        hook()
        kill()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        kill()
    """
    assert ended(program) == (KILLED, "theirs\nbefore\n", "")


def test_a_program_that_restores_the_default_and_raises_the_signal_again_comes_to_us() -> None:
    """So does uvicorn at its end."""
    program = """
        hook()
        before = signal.signal(signal.SIGTERM, lambda *_: say("theirs"))
        kill()
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
    """
    assert ended(program) == (KILLED, "theirs\nbefore\n", "")


def test_an_event_loop_takes_the_signal_and_gives_it_back() -> None:
    program = """
        hook()

        async def main():
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            loop.add_signal_handler(signal.SIGTERM, done.set)
            kill()
            await done.wait()
            say("theirs")
            loop.remove_signal_handler(signal.SIGTERM)

        asyncio.run(main())
        kill()
    """
    assert ended(program) == (KILLED, "theirs\nbefore\n", "")


def test_removal_puts_everything_back() -> None:
    program = """
        bare = signal.signal, signal.getsignal
        made = hook()
        made.remove()
        made.remove()
        say((signal.signal, signal.getsignal) == bare, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        say(made)
        made.install()
        say(made)
        made.remove()
        kill()
    """
    told = "True True\n<TerminationHook [removed]>\n<TerminationHook [installed]>\n"
    assert ended(program) == (KILLED, told, "")


def test_removal_off_the_main_thread_leaves_what_does_as_the_default() -> None:
    program = """
        thread = threading.Thread(target=hook().remove)
        thread.start()
        thread.join()
        kill()
        say("alive")
    """
    assert ended(program) == (KILLED, "", "")


def test_a_later_patch_survives_our_removal_and_ours_beneath_is_silent() -> None:
    program = """
        made, ours = hook(), signal.signal
        signal.signal = lambda *args: (say("patched"), ours(*args))[1]
        made.remove()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        kill()
    """
    assert ended(program) == (KILLED, "patched\n", "")


def test_what_is_refused_without_us_is_refused() -> None:
    program = """
        hook()
        for arguments in ((signal.SIGKILL, signal.SIG_DFL), (15, "x"), (15,)):
            try:
                signal.signal(*arguments)
            except Exception as error:
                say(type(error).__name__)
    """
    assert ended(program) == (0, "OSError\nTypeError\nTypeError\n", "")


def test_off_the_main_thread_nothing_is_done() -> None:
    program = """
        bare = signal.signal
        thread = threading.Thread(target=hook)
        thread.start()
        thread.join()
        say(signal.signal is bare)
        kill()
    """
    assert ended(program) == (KILLED, "True\n", "")


def test_the_signal_waits_while_the_main_thread_may_hold_a_lock() -> None:
    program = """
        import types
        sdk = types.ModuleType("sdk.inner")
        exec('''def work(inner):
            inner()
            return "out"
        ''', vars(sdk))
        hook(busy=("sdk.",))
        say(sdk.work(kill))
        time.sleep(60)
    """
    assert ended(program) == (KILLED, "out\nbefore\n", "")


def test_the_signal_does_not_wait_for_long() -> None:
    assert ended("hook(busy=('__main__',)); kill(); time.sleep(60)") == (KILLED, "before\n", "")


def test_the_signal_does_not_wait_where_no_thread_can_be_had() -> None:
    program = """
        def refuse(*_):
            raise RuntimeError("can't start new thread")

        hook(busy=("__main__",))
        termination._thread.start_new_thread = refuse
        kill()
        say("alive")
    """
    assert ended(program) == (KILLED, "before\n", "")


UNHEARD = """
    import itertools, subprocess
    try:
        from otel_concurrency.probes._native import repeat_signal
    except ImportError:
        say("not here")
        os._exit(0)

    def give_up_after(seconds):
        watchdog = threading.Thread(target=lambda: (time.sleep(seconds), os._exit(7)), daemon=True)
        watchdog.start()

    def wait_unheard():
        # The signal comes to another thread: it is noted, and wakes nobody.
        waits = threading.Lock()
        waits.acquire()

        def signal_here():
            time.sleep(0.2)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        threading.Thread(target=signal_here, daemon=True).start()
        waits.acquire()
"""


def ended_unheard(program: str) -> tuple[int, str, str]:
    done = ended(textwrap.dedent(UNHEARD) + textwrap.dedent(program))
    if done == (0, "not here\n", ""):
        pytest.skip("needs the C extension, and Linux")
    return done


def test_a_signal_that_finds_the_main_thread_on_its_way_into_a_wait_is_heard() -> None:
    assert ended_unheard("give_up_after(20); hook(within_s=10); wait_unheard()") == (KILLED, "before\n", "")


def test_so_it_is_where_a_program_has_restored_the_default() -> None:
    program = """
        give_up_after(20)
        hook(within_s=10)
        signal.signal(signal.SIGTERM, lambda *_: say("theirs"))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        wait_unheard()
    """
    assert ended_unheard(program) == (KILLED, "before\n", "")


def test_so_it_is_in_a_forked_child_of_any_thread_and_in_its_child() -> None:
    program = """
        def child(*fork_again):
            if pid := os.fork():
                say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            else:
                for each in fork_again:
                    each()
                give_up_after(20)
                wait_unheard()

        hook(within_s=10)
        child(child)
        thread = threading.Thread(target=child)
        thread.start()
        thread.join()
    """
    assert ended_unheard(program) == (0, "before\n-15\n" * 3, ANY)  # 3.12 and later warn of the thread


def test_what_has_been_heard_comes_no_more() -> None:
    """Else it would cut short what is done about it."""
    program = """
        hook(lambda: (time.sleep(0.5), say("before")), within_s=10)
        wait_unheard()
    """
    assert ended_unheard(program) == (KILLED, "before\n", "")
    program = """
        seen = []
        made = hook(within_s=10)
        signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
        kill()
        time.sleep(0.3)
        termination.INIT = os.getpid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        kill()
        time.sleep(0.3)
        say(seen)
    """
    assert ended_unheard(program) == (0, "in background: SIGTERM\n[1]\n", "")


def test_a_signal_that_nobody_can_hear_ends_the_process_in_the_end() -> None:
    program = """
        hook(within_s=0.3)
        subprocess.Popen(["sh", "-c", f"sleep 0.2; kill {os.getpid()}"])  # none of our threads gets a turn
        sum(itertools.repeat(1, 10**12))
    """
    assert ended_unheard(program) == (KILLED, "", "")


def test_where_the_default_action_does_nothing_the_process_goes_on() -> None:
    """The first process of a container; the kernel spares it."""
    program = """
        termination.INIT = os.getpid()
        hook()
        kill()
        say("alive")
        kill()
    """
    assert ended(program) == (0, "in background: SIGTERM\nalive\nin background: SIGTERM\n", "")


def test_what_the_process_executes_has_the_real_default() -> None:
    program = """
        hook()
        os.execv(sys.executable, [sys.executable, "-c", "import signal; print(repr(signal.getsignal(15)))"])
    """
    assert ended(program) == (0, "<Handlers.SIG_DFL: 0>\n", "")


def test_a_child_of_a_fork_ends_by_the_signal() -> None:
    program = """
        hook()
        pid = os.fork()
        if not pid:
            kill()
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert ended(program) == (0, "before\n-15\n", "")


def test_a_signal_that_comes_while_a_child_begins_ends_it() -> None:
    """CPython forgets what a child has noted by then; the parent is always faster with the first one."""
    program = """
        def status_of_child_killed_at_once():
            pid = os.fork()
            if not pid:
                time.sleep(2)
                os._exit(7)
            os.kill(pid, signal.SIGTERM)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        hook(needed=False)
        say([status_of_child_killed_at_once() for _ in range(10)] == [-15] * 10)
        told = []
        thread = threading.Thread(target=lambda: told.append(status_of_child_killed_at_once()))
        thread.start()
        thread.join()
        say(told)
    """
    assert ended(program) == (0, "True\n[-15]\n", ANY)  # CPython 3.12 and later warn of the thread


def test_a_fork_leaves_the_signal_mask_as_it_was() -> None:
    program = """
        def mask():
            return sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))

        def masks():
            if pid := os.fork():
                os.waitpid(pid, 0)
                say("parent", mask())
            else:
                say("child", mask())
                os._exit(0)

        made = hook()
        masks()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        masks()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.register_at_fork(before=lambda: say("before", mask()))
        masks()
        signal.signal(signal.SIGTERM, lambda *_: None)  # forgotten or not, that is the program's affair
        masks()
        made.remove()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        masks()
    """
    free = "child []\nparent []\n"
    assert ended(program) == (0, free + "child [15]\nparent [15]\n" + f"before []\n{free}" * 3, "")


def test_ctrl_c_is_left_alone() -> None:
    program = """
        hook()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            say("theirs")
    """
    assert ended(program) == (0, "theirs\n", "")


def test_ctrl_c_at_its_default_action_comes_to_us() -> None:
    """gunicorn's uvicorn workers set it so."""
    program = """
        made = TerminationHook(say, lambda: True, say)
        made.install()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        say(signal.getsignal(signal.SIGINT) is signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    """
    assert ended(program) == (-signal.SIGINT, "True\nSIGINT\n", "")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="interpreters came with CPython 3.14")
def test_in_another_interpreter_nothing_is_done() -> None:
    program = """
        from concurrent import interpreters
        interpreters.create().exec('if True:' + SOURCE + 'say(hook()); say(signal.signal.__module__)')
    """
    source = f"SOURCE = {HOOK!r}\n" + textwrap.dedent(program)
    told = "<TerminationHook [removed]>\nsignal\n"
    assert ended(source) == (0, told, "")
