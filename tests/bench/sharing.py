"""Seconds per step of two sessions at once, in processes of their own, over those of one alone."""

import subprocess
import sys
import time
from statistics import mean, median

STEPS = 40
ROUNDS = 9


def sharing() -> None:
    """Time the same steps alone and beside those of a second session, in turns."""
    sessions = [_start(), _start()]
    for session in sessions:
        _read(session)
    alone: list[float] = []
    both: list[float] = []
    for _ in range(ROUNDS):
        alone.append(_decode(sessions[:1]))
        both.append(_decode(sessions))
    for session in sessions:
        session.communicate()
    one, two = median(alone), median(both)
    print(f"  alone             {one / STEPS * 1e3:6.1f} ms a step")
    print(f"  two at once       {two / STEPS * 1e3:6.1f} ms   {two / one:.2f} × alone", end="")
    print("; each with half of the cores would take 2")


def _start() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.sharing"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _decode(sessions: list["subprocess.Popen[str]"]) -> float:
    """Mean seconds that these sessions take for their steps, begun at the same time."""
    for session in sessions:
        assert session.stdin is not None
        session.stdin.write("decode\n")
        session.stdin.flush()
    return mean(_read(session) for session in sessions)


def _read(session: "subprocess.Popen[str]") -> float:
    assert session.stdout is not None
    return float(session.stdout.readline())


def _serve() -> None:
    """Decode the demo's five lanes at each line of stdin; print the seconds."""
    from prunetui.engine.options import Options
    from prunetui.engine.session.session import open_session

    from .decoding import VARIANTS

    options = Options(
        variants=VARIANTS, context="free", max_new_tokens=(ROUNDS * 2 + 1) * STEPS, ignore_eos=True
    )
    session = open_session(options, None, lambda *_: None)
    while True:
        began = time.perf_counter()
        for _ in range(STEPS):
            session.step()
        print(time.perf_counter() - began, flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    _serve()
