"""ctrl+z, in a terminal with a shell that has job control."""

import fcntl
import os
import pty
import select
import shutil
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prunetui.tui.app import InspectorApp

from ..support.screens import notices, replay

SCRIPT = """
from tests.support.fake_session import FakeSession
from tests.support.screens import live
live(FakeSession(most=100_000)).run()
"""
EVERYWHERE = [b"tiny", b"steps", b"prompt:", b"next token", b"drift of", b"play", b"quit"]
"""Texts of a whole frame, from its first line to its last."""


class Shell:
    """bash, in a terminal of 80 by 24."""

    def __init__(self) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", PS1="> ")
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))

    def write(self, text: bytes) -> None:
        os.write(self._terminal, text)

    def read(self, *wanted: bytes) -> bytes:
        """All that comes until each of these has come."""
        seen, end = b"", time.monotonic() + 60
        while any(text not in seen for text in wanted):
            ready, _, _ = select.select([self._terminal], [], [], end - time.monotonic())
            assert ready, (wanted, seen)
            seen += os.read(self._terminal, 65536)
        return seen

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self.pid, 0)


@pytest.fixture
def shell() -> Iterator[Shell]:
    opened = Shell()
    yield opened
    opened.close()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash has the job control")
def test_ctrl_z_stops_and_fg_comes_back_to_a_whole_screen(shell: Shell, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = f"cd {Path(__file__).parents[2]}; PYTHONPATH=$PYTHONPATH:. {sys.executable} {script}"
    shell.write(command.encode() + b"\n")
    shell.read(*EVERYWHERE, b"0/64 steps")
    shell.write(b" ")
    shell.read(b"decoding")
    shell.write(b"\x1a")
    shell.read(b"Stopped")
    shell.write(b"stty -a | grep -o ' echo '; echo th''ere\n")
    assert b" echo " in shell.read(b"there")
    shell.write(b"fg\n")
    # The session's thread goes on with its steps, and hears.
    shell.read(*EVERYWHERE, b"decoding")
    shell.write(b" ")
    shell.read(b"paused")
    shell.write(b"\x1a")
    shell.read(b"Stopped")
    shell.write(b"fg\n")
    shell.read(*EVERYWHERE)
    shell.write(b"q")
    shell.read(b"> ")
    shell.write(b"echo co''de $?\n")
    shell.read(b"code 0")
    shell.write(b"exit\n")


LOADING = """
import time
from prunetui.engine.options import Options
from prunetui.tui.app import PrunetuiApp

def open_session(options, record_to, progress):
    progress("loading for ever", 0.5)
    time.sleep(1000)

PrunetuiApp(Options(), None, open_session=open_session).run()
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash has the job control")
@pytest.mark.parametrize(
    ("program", "key", "screen"),
    [
        (LOADING, b"", [b"opening demo", b"loading for ever", b"play", b"quit"]),
        (SCRIPT, b"?", [b"Keys", b"One step back", b"quit"]),
    ],
    ids=["loading", "help"],
)
def test_it_comes_back_to_where_it_was(
    program: str, key: bytes, screen: list[bytes], shell: Shell, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(program)
    command = f"cd {Path(__file__).parents[2]}; PYTHONPATH=$PYTHONPATH:. {sys.executable} {script}"
    shell.write(command.encode() + b"\n")
    shell.read(*(EVERYWHERE if key else screen))
    if key:
        shell.write(key)
        shell.read(*screen[:-1])
    shell.write(b"\x1a")
    shell.read(b"Stopped")
    shell.write(b"fg\n")
    shell.read(*screen)
    shell.write(b"\x03")
    shell.read(b"again to quit")
    shell.write(b"\x03")
    shell.read(b"> ")
    shell.write(b"echo co''de $?\n")
    shell.read(b"code 0")
    shell.write(b"exit\n")


async def test_without_a_shell_nothing_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    app: InspectorApp = replay()
    monkeypatch.setattr("os.getsid", lambda process: process)
    monkeypatch.setattr("os.killpg", lambda *_: pytest.fail("it would never come back"))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("ctrl+z")
        assert notices(app) == ["There is no shell here that could come back."]
