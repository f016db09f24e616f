"""What the inspector sends to a terminal, seen from the other end of a pty."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import BinaryIO

ROUNDS = 3
STEPS = (10, 500, 1000)
WINDOW = 40
"""Steps over which bytes are counted, from each of `STEPS` on."""


class Terminal:
    """A process on a pty of 120×40, and how many bytes it has written."""

    def __init__(self, arguments: list[str]) -> None:
        self._screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": ""}
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            arguments, stdin=inside, stdout=inside, stderr=inside, env=environment, close_fds=True
        )
        os.close(inside)
        self.received = b""

    def read(self, seconds: float) -> None:
        """What arrives within that time."""
        ready, _, _ = select.select([self._screen], [], [], seconds)
        if ready:
            self.received += os.read(self._screen, 1 << 16)

    def wait_for(self, text: str) -> float:
        """Seconds from the start until `text` has been written."""
        while text.encode() not in self.received:
            if self.process.poll() is not None:
                raise RuntimeError(f"ended without {text!r}: {self.received[-2000:]!r}")
            self.read(0.005)
        return time.perf_counter() - self.began

    def press(self, key: str) -> None:
        os.write(self._screen, key.encode())


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(
        [sys.executable, "-c", "from prunetui.tui.cli import main; main()", *arguments]
    )
    try:
        yield opened
    finally:
        opened.process.send_signal(signal.SIGKILL)
        opened.process.wait()


def first_frame() -> None:
    painted, imported = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import textual.app"], check=True)
        imported.append(time.perf_counter() - began)
        with terminal("--no-trace") as opened:
            painted.append(opened.wait_for("opening"))
    alone, ours = median(imported), median(painted)
    print(f"  importing textual  {alone:6.2f} s")
    print(f"  first frame        {ours:6.2f} s    {ours / alone:.2f} × importing textual")


def traffic(keys: str) -> None:
    """`keys` are pressed before decoding begins; they choose a view."""
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "bench.trace.jsonl"
        last = STEPS[-1] + WINDOW
        with terminal(
            *("--ignore-eos", "--max-new-tokens", str(last + 1), "-o", str(trace))
        ) as opened:
            opened.wait_for("prompt is read")
            opened.press(f"{keys} ")
            with trace.open("rb") as lines:
                recorded = _Recorded(lines)
                sent = [_bytes_over(opened, recorded, step) for step in STEPS]
    for step, count in zip(STEPS, sent, strict=True):
        print(f"  steps {step:3} to {step + WINDOW:3}   {count:6.0f} bytes a step", end="")
        print(f"   {count / sent[0]:.2f} × the first")


class _Recorded:
    """How many steps a trace has that is being written."""

    def __init__(self, lines: BinaryIO) -> None:
        self._lines = lines
        self._count = -1  # the header is a line too

    @property
    def steps(self) -> int:
        self._count += self._lines.read().count(b"\n")
        return self._count


def _bytes_over(opened: Terminal, recorded: _Recorded, step: int) -> float:
    """Bytes a step that arrive while the steps from `step` on are recorded."""
    while recorded.steps < step:
        opened.read(0.01)
    first, before = recorded.steps, len(opened.received)
    while (now := recorded.steps) < step + WINDOW:
        opened.read(0.01)
    return (len(opened.received) - before) / (now - first)
