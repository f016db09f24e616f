"""Seconds that the proof at load adds before the first step."""

import contextlib
import statistics
import subprocess
import sys
import time
from unittest.mock import patch

RUNS = 7


def loading() -> None:
    """Time the start with and without the proof, each in a process of its own with full caches."""
    _in_process("with")
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(RUNS):
        for way, times in seconds.items():
            times.append(_in_process(way))
    whole, without = (statistics.median(times) for times in seconds.values())
    print(
        f"  reference and proof: {1 - without / whole:.3f} of what it takes from the start of the "
        f"process to the first step ({whole:.2f} s)"
    )


def _in_process(way: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "tests.bench.loading", way], check=True, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def _open(way: str) -> None:
    from prunetui.engine.decode.proof import Proof
    from prunetui.engine.options import Options
    from prunetui.engine.session.session import open_session

    with contextlib.ExitStack() as stack:
        if way == "without":
            for module, name in (
                ("model.loading", "take_reference"),
                ("decode.prepared_lanes", "prove"),
            ):
                nothing = Proof(frozenset(), []) if name == "prove" else None
                stack.enter_context(
                    patch(f"prunetui.engine.{module}.{name}", lambda *_, nothing=nothing: nothing)
                )
        open_session(Options(), None, lambda *_: None).step()


if __name__ == "__main__":
    _open(sys.argv[1])
