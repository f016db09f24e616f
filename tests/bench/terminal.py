"""Bytes that the inspector sends to a terminal, counted at the other end of a pty."""

import fcntl
import os
import pty
import re
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

import msgspec
from prunetui.engine.trace.file import TraceWriter

from ..support.traces import make_trace, with_local

ROUNDS = 3
STEPS = (10, 500, 1000)
WINDOW = 40
"""Steps over which bytes are counted, from each of `STEPS` on."""
DOWN, UP, LEFT, TEN_LEFT, HOME = "\x1b[B", "\x1b[A", "\x1b[D", "\x1b[1;2D", "\x1b[H"
WALK = ((DOWN, "drop:attn=8"), (DOWN, "drop:mlp=8"), (UP, "drop:attn=8"), (UP, "drop:attn=4"))
"""Keys and the lanes that they select, from the first variant on."""
KEYS = 60
LONG_STEPS = 4000
PLAYED_SECONDS = 8


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
        """Bytes that arrive within that time."""
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

    def read_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.read(left)

    def read_until_quiet(self) -> None:
        """Read until nothing has come for longer than any throttle waits."""
        before = -1
        while before != len(self.received):
            before = len(self.received)
            self.read_for(0.8)

    def cpu_seconds(self) -> float:
        """CPU seconds of the main thread, which draws."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9

    def press(self, key: str) -> None:
        os.write(self._screen, key.encode())


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(
        [sys.executable, "-c", "from prunetui.tui.cli.main import main; main()", *arguments]
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
    """Print the bytes per step of a view, which `keys` choose before decoding begins."""
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


def key_to_paint() -> None:
    """Print the time from a key that selects a lane, while the demo decodes, to its drift panel."""
    with terminal("--ignore-eos", "--no-trace", "--max-new-tokens", "2000") as opened:
        opened.wait_for("prompt is read")
        opened.press(" ")
        seconds = []
        for number in range(KEYS):
            # Not in step with the frames.
            opened.read_for(0.2 + number % 7 * 0.013)
            key, lane = WALK[number % len(WALK)]
            opened.received = b""
            began = time.perf_counter()
            opened.press(key)
            opened.wait_for(f"drift of {lane}")
            seconds.append(time.perf_counter() - began)
    seconds.sort()
    print(f"  median             {seconds[len(seconds) // 2] * 1e3:6.1f} ms")
    print(f"  95th percentile    {seconds[int(len(seconds) * 0.95)] * 1e3:6.1f} ms")


def long_trace() -> None:
    """Print a replay's CPU seconds per key and bytes of playing, for 4,000 steps of five lanes."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "long.trace.jsonl"
        trace = with_local(make_trace(LONG_STEPS, 4))
        writer = TraceWriter(file, trace.header)
        for step in trace.steps:
            writer.write(msgspec.structs.replace(step, seconds=1 / 20))
        writer.close()
        for view in "0123456":
            with terminal("replay", str(file)) as opened:
                opened.wait_for("replay")
                for key in (DOWN, view):
                    opened.read_until_quiet()
                    opened.press(key)
                opened.read_until_quiet()
                seconds = [_cpu_of(opened, key) for key in (LEFT, LEFT, TEN_LEFT, DOWN, UP) * 2]
                print(
                    f"  view {view}   CPU of a key's frames {median(seconds) * 1e3:5.0f} ms", end=""
                )
                print(f", at the most {max(seconds) * 1e3:4.0f} ms", end="")
                print(f", playing {_bytes_played(opened):6.0f} bytes a step" if view < "2" else "")


def _cpu_of(opened: Terminal, key: str) -> float:
    before = opened.cpu_seconds()
    opened.press(key)
    opened.read_until_quiet()
    return opened.cpu_seconds() - before


def _bytes_played(opened: Terminal) -> float:
    """Bytes of playing the overview or view 1."""
    opened.press(HOME)
    opened.read_until_quiet()
    opened.received = b""
    opened.press(" ")
    opened.read_for(PLAYED_SECONDS)
    last = max(int(number) for number in re.findall(rb"at step (\d+)", opened.received))
    return len(opened.received) / last


class _Recorded:
    """Count of the steps in a trace that is being written."""

    def __init__(self, lines: BinaryIO) -> None:
        self._lines = lines
        self._count = -1  # the header is a line too

    @property
    def steps(self) -> int:
        self._count += self._lines.read().count(b"\n")
        return self._count


def _bytes_over(opened: Terminal, recorded: _Recorded, step: int) -> float:
    """Bytes per step that arrive while the steps from `step` on are recorded."""
    while recorded.steps < step:
        opened.read(0.01)
    first, before = recorded.steps, len(opened.received)
    while (now := recorded.steps) < step + WINDOW:
        opened.read(0.01)
    return (len(opened.received) - before) / (now - first)
