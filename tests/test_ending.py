"""A session in a terminal of its own that is told to end, or loses the terminal."""

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
from prunetui.engine.trace.log import read_trace

from .models import save_model_directory

pytestmark = pytest.mark.persons_cache

SECONDS = 60
"""How long to wait for what comes at once on an idle machine."""


@pytest.mark.parametrize(
    ("tell", "own_session", "code"),
    [
        (lambda running, _: running.send_signal(signal.SIGHUP), True, 128 + signal.SIGHUP),
        (lambda running, _: running.send_signal(signal.SIGTERM), True, 128 + signal.SIGTERM),
        (lambda _, master: os.close(master), True, 128 + signal.SIGHUP),
        # Not the terminal's own session: nobody sends a signal.
        (lambda _, master: os.close(master), False, 128 + signal.SIGHUP),
    ],
    ids=["SIGHUP", "SIGTERM", "closed", "closed-no-signal"],
)
def test_the_session_ends_and_its_trace_is_whole(
    tell: Callable[[subprocess.Popen[bytes], int], None],
    own_session: bool,
    code: int,
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.trace.jsonl"
    model = save_model_directory(tmp_path / "tiny")
    program = "from prunetui.tui.cli import main; main()"
    if own_session:
        # The terminal controls the process, as a login does.
        program = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " + program
    arguments = ["-m", model, "--prompt", "Hi", "--ignore-eos", "-o", path, "-v", "drop:attn=[1]"]
    arguments += ["--max-new-tokens", "100000", "--threads", "1"]
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    running = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(terminal)
    deadline = time.monotonic() + SECONDS
    pressed = False
    try:
        while not path.exists() or path.read_bytes().count(b"\n") < 10:
            assert running.poll() is None
            assert time.monotonic() < deadline
            if select.select([master], [], [], 0.05)[0]:
                os.read(master, 65536)
            if path.exists() and not pressed:
                os.write(master, b" ")
                pressed = True
        tell(running, master)
        assert running.wait(SECONDS) == code
    finally:
        running.kill()
        running.wait()
    content = path.read_bytes()
    assert content.endswith(b"\n")
    assert len(read_trace(path).steps) == content.count(b"\n") - 1 >= 9
