"""Shutdown by a signal, or by losing the terminal or pipe that the process writes to."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prunetui.engine.trace.file import read_trace

from ..support.command_line import MAIN, WITHOUT_TORCH
from ..support.models import save_model_directory

pytestmark = pytest.mark.user_cache

SECONDS = 60
"""Time limit of waits that end at once on an idle machine."""

HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
OWN_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
"""Statement that makes the terminal control the process, as a login does."""

STUCK = """
def stuck():
    # A lock that is taken twice, in C: neither a signal nor an exception gets through to it.
    import ctypes
    mutex = ctypes.create_string_buffer(256)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

"""


class Running:
    """Process whose standard streams are a terminal, except those given."""

    def __init__(
        self,
        program: str,
        *arguments: object,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=terminal,
            stdout=stdout or terminal,
            stderr=stderr or terminal,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(terminal)
        self.received = b""

    def read(self, seconds: float = 0.05) -> bytes:
        """Read what the terminal gets within `seconds`."""
        if not select.select([self.screen], [], [], seconds)[0]:
            return b""
        try:
            more = os.read(self.screen, 65536)
        except OSError:  # the other end is closed
            return b""
        self.received += more
        return more

    def wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not ready():
            self.read()
            assert self.process.poll() is None, self.received
            assert time.monotonic() < deadline, self.received

    def code(self) -> int:
        """Wait for the end, read everything and return the exit code."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.received
            self.read()
        while self.read():
            pass
        return self.process.returncode

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def cursor_is_shown(received: bytes) -> bool:
    return HIDE in received and received.rindex(SHOW) > received.rindex(HIDE)


def steps_in(path: Path) -> int:
    """Number of steps in a trace file: its lines but for the header; -1 without a file."""
    return path.read_bytes().count(b"\n") - 1 if path.exists() else -1


def is_whole(path: Path) -> bool:
    content = path.read_bytes()
    return content.endswith(b"\n") and len(read_trace(path).steps) == content.count(b"\n") - 1


def decoding(tmp_path: Path, path: Path) -> list[object]:
    """Arguments that make the inspector or `record` decode for long."""
    model = save_model_directory(tmp_path / "tiny")
    arguments = ["-m", model, "--prompt", "Hi", "--ignore-eos", "-o", path, "-v", "drop:attn=[1]"]
    return [*arguments, "--max-new-tokens", "100000", "--threads", "1"]


def close_terminal(running: Running) -> None:
    os.close(running.screen)


def send(number: int) -> Callable[[Running], None]:
    return lambda running: running.process.send_signal(number)


# -- the inspector --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tell", "own_terminal", "code"),
    [
        (send(signal.SIGHUP), True, 128 + signal.SIGHUP),
        pytest.param(send(signal.SIGTERM), True, 128 + signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(send(signal.SIGQUIT), True, 128 + signal.SIGQUIT, marks=pytest.mark.slow),
        pytest.param(close_terminal, True, 128 + signal.SIGHUP, marks=pytest.mark.slow),
        # Not the terminal's own session: nobody sends a signal.
        (close_terminal, False, 128 + signal.SIGHUP),
    ],
    ids=["SIGHUP", "SIGTERM", "SIGQUIT", "closed", "closed-no-signal"],
)
def test_the_session_ends_and_its_trace_is_whole(
    tell: Callable[[Running], None], own_terminal: bool, code: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.trace.jsonl"
    program = OWN_TERMINAL * own_terminal + MAIN
    with Running(program, *decoding(tmp_path, path)) as running:
        running.wait_until(path.exists)
        os.write(running.screen, b" ")
        running.wait_until(lambda: steps_in(path) >= 9)
        tell(running)
        assert running.process.wait(SECONDS) == code
    assert is_whole(path)


# -- record ---------------------------------------------------------------------------------------


def test_record_ends_in_the_middle_of_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    with Running(MAIN, "record", *decoding(tmp_path, path)) as running:
        running.wait_until(lambda: steps_in(path) >= 9)
        running.process.send_signal(signal.SIGTERM)
        assert running.code() == 128 + signal.SIGTERM
    assert cursor_is_shown(running.received)
    assert is_whole(path)
    assert f"{steps_in(path)} steps recorded in" in running.received.decode()
    assert b"Traceback" not in running.received


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"])
def test_any_signal_shows_the_cursor_and_what_is_recorded(name: str, tmp_path: Path) -> None:
    path, number = tmp_path / "a.trace.jsonl", signal.Signals[name]
    with Running(WITHOUT_TORCH + MAIN, "record", "-o", path) as running:
        running.wait_until(lambda: steps_in(path) >= 5)
        running.process.send_signal(number)
        assert running.code() == 128 + number
    assert cursor_is_shown(running.received)
    assert is_whole(path)
    assert f"{steps_in(path)} steps recorded in" in running.received.decode()
    assert b"Traceback" not in running.received


@pytest.mark.parametrize("where", ["at_loading", "at_step_10"])
@pytest.mark.parametrize("presses", [1, 2])
def test_what_listens_to_nothing_ends_too(where: str, presses: int, tmp_path: Path) -> None:
    """The first ctrl+c leaves a call into C the grace time, the second ends it at once."""
    path = tmp_path / "a.trace.jsonl"
    program = f"{WITHOUT_TORCH}{STUCK}\n{where} = stuck\n{OWN_TERMINAL}{MAIN}"
    with Running(program, "record", "-o", path) as running:
        running.wait_until(lambda: HIDE in running.received)
        if where == "at_step_10":
            running.wait_until(lambda: steps_in(path) == 10)
        for _ in range(presses):
            os.write(running.screen, b"\x03")
            running.read(0.5)
        assert running.code() == 130
    assert cursor_is_shown(running.received)
    assert b"Traceback" not in running.received
    assert where == "at_loading" or (is_whole(path) and steps_in(path) == 10)


@pytest.mark.parametrize(
    ("stream", "stuck"),
    [
        ("stdout", False),
        ("stderr", True),
        pytest.param("stdout", True, marks=pytest.mark.slow),
        pytest.param("stderr", False, marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_goes_away_ends_it(stream: str, stuck: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    reads, writes = os.pipe()
    program = WITHOUT_TORCH + STUCK + "\nat_step_10 = stuck\n" * stuck + MAIN
    with Running(program, "record", "-o", path, **{stream: writes}) as running:
        os.close(writes)
        running.wait_until(lambda: steps_in(path) >= 10)
        os.close(reads)
        assert running.code() == 128 + signal.SIGPIPE
    assert stream == "stderr" or cursor_is_shown(running.received)
    assert is_whole(path)
    assert b"Traceback" not in running.received


def test_a_signal_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with Running(ignore + WITHOUT_TORCH + MAIN, "record", "-o", path) as running:
        running.wait_until(lambda: steps_in(path) >= 5)
        running.process.send_signal(signal.SIGHUP)
        running.wait_until(lambda: steps_in(path) >= 50)
        running.process.send_signal(signal.SIGTERM)
        assert running.code() == 128 + signal.SIGTERM


def test_a_child_process_is_told_by_itself(tmp_path: Path) -> None:
    """A signal that ends a child process does not end its parent."""
    path = tmp_path / "a.trace.jsonl"
    fork = """
def at_step_10():
    import os, signal
    if (child := os.fork()) == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
"""
    with Running(WITHOUT_TORCH + fork + MAIN, "record", "-o", path) as running:
        running.wait_until(lambda: steps_in(path) >= 50)
        running.process.send_signal(signal.SIGINT)
        assert running.code() == 130


def test_a_thread_that_loses_its_terminal_leaves_no_traceback(tmp_path: Path) -> None:
    program = """
import errno, threading
from prunetui.tui.user.log_file import log_to_file

def fail(error):
    raise error

log_to_file()
for error in (OSError(errno.EIO, "gone"), ValueError("ours")):
    thread = threading.Thread(target=fail, args=(error,), name=type(error).__name__)
    thread.start()
    thread.join()
"""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert done.stderr == b""
    first, *others = (tmp_path / "prunetui" / "prunetui.log").read_text().splitlines()
    assert first.endswith(" prunetui thread OSError ended: [Errno 5] gone")
    assert others[0].endswith(" prunetui thread ValueError ended: ours")
    assert others[1] == "Traceback (most recent call last):"
