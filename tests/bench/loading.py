"""What the proof at load takes of the time until the first step."""

import json
import statistics
import subprocess
import sys
import time
from typing import Any

RUNS = 5


def loading() -> None:
    """Each in a process of its own, which finds its caches full."""
    runs = [_in_process() for _ in range(RUNS + 1)][1:]
    whole, proof = ([run[key] for run in runs] for key in ("whole", "proof"))
    share = statistics.median(part / total for part, total in zip(proof, whole, strict=True))
    print(
        f"  reference and proof: {share:.3f} of what it takes from the start of the process to the "
        f"first step ({statistics.median(whole):.2f} s)"
    )


def _in_process() -> dict[str, float]:
    began = time.time()
    program = [sys.executable, "-m", "tests.bench.loading", str(began)]
    printed = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    return json.loads(printed)


def _measure(began: float) -> None:
    from prunetui.engine import lanes, loading
    from prunetui.engine.options import Options
    from prunetui.engine.session import open_session

    seconds: list[float] = []

    def timed(module: Any, name: str) -> None:
        run = getattr(module, name)

        def measured(*given: Any) -> Any:
            start = time.perf_counter()
            try:
                return run(*given)
            finally:
                seconds.append(time.perf_counter() - start)

        setattr(module, name, measured)

    timed(loading, "take_reference")
    timed(lanes, "prove")
    open_session(Options(), None, lambda *_: None).step()
    print(json.dumps({"whole": time.time() - began, "proof": sum(seconds)}))


if __name__ == "__main__":
    _measure(float(sys.argv[1]))
