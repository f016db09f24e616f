"""Memory that lanes add to the baseline's, each measured in a process of its own.

What tensors free is kept for the next ones, so a process that has held more than it holds now
tells nothing; and what is kept is given back before it is measured.
"""

import contextlib
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from prunetui.engine.decode.fixed_cache import FixedLayer
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.model.device import find_device
from prunetui.engine.model.memory import memory_in_use
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.file import read_trace
from prunetui.engine.variants.pruning.matrices import matrix_stacks
from transformers.cache_utils import DynamicLayer

from ..support.models import save_model_directory

STEPS = 40
LANES = {
    "baseline": (),
    "four dropping": ("drop:attn=4", "drop:attn=8", "drop:mlp=4", "drop:mlp=8"),
    "one wanda": ("wanda:0.5",),
}
LONG = (1000, 4000)
"""Numbers of steps."""
LONG_VARIANTS = ("drop:attn=[0]", "drop:attn=[3]", "drop:mlp=[1]", "drop:mlp=[2]")


def memory() -> None:
    alone = _in_process("baseline")
    print(f"  Python and torch    {alone['before'] / 1e6:7.1f} MB")
    own = alone["used"] - alone["before"]
    print(f"  baseline          + {own / 1e6:7.1f} MB   {own / alone['weights']:.2f} × its", end="")
    print(f" weights ({alone['weights'] / 1e6:.1f} MB)")
    for name in [*LANES][1:]:
        found = _in_process(name)
        added = found["used"] - alone["used"]
        caches, own = found["caches"] - alone["caches"], found["linears"]
        what = f"caches ({caches / 1e6:.1f} MB)"
        if own:
            what += f" and linears ({own / 1e6:.1f} MB)"
        print(f"  {name:<16}  + {added / 1e6:7.1f} MB   {added / (caches + own):.2f} × its {what}")


def _in_process(name: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.bench.memory", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(name: str) -> dict[str, int]:
    """Bytes in use (on a GPU the peak while decoding), and of weights, caches and own linears."""
    options = Options(
        variants=LANES[name],
        context="free",
        ignore_eos=True,
        max_new_tokens=STEPS,
        calibration_samples=2,
        calibration_length=64,
    )
    before = _in_use()
    session = open_session(options, None, lambda *_: None)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    while session.finished is None:
        session.step()
    used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _in_use()
    caches, baseline = cache_room(session.lanes.lockstep), session.lanes.models[0].group
    session.close()
    own = {
        id(parameter): parameter.nbytes
        for lane in session.lanes.models
        if lane.group is not baseline
        for layer in lane.group.anatomy.layers
        for held in matrix_stacks(layer.module)
        for parameter in [held.module.get_parameter(held.name)]
    }
    weights = sum(parameter.nbytes for parameter in baseline.model.parameters())
    return {
        "before": before,
        "used": used,
        "weights": weights,
        "caches": caches,
        "linears": sum(own.values()),
    }


def long_run() -> None:
    """Print the memory that steps leave behind, on a model so tiny that it shows."""
    with tempfile.TemporaryDirectory() as directory:
        source = save_model_directory(Path(directory) / "model", max_position_embeddings=8192)
        file = Path(directory) / "long.trace.jsonl"
        options = Options(
            model=str(source),
            variants=LONG_VARIANTS,
            prompt="To be, or not to be",
            raw=True,
            context="free",
            ignore_eos=True,
            max_new_tokens=LONG[-1],
        )
        session = open_session(options, file, lambda *_: None)
        found = []
        for steps in LONG:
            while len(session.trace.steps) < steps:
                session.step()
            found.append((_in_use(), cache_room(session.lanes.lockstep), _deep_size(session.trace)))
            used, caches, trace = (count / 1e6 for count in found[-1])
            print(
                f"  step {steps:5}          {used:7.1f} MB   caches {caches:.1f}, trace {trace:.1f}"
            )
        (used, *known), (more, *later) = found
        left = more - used - sum(later) + sum(known)
        between = LONG[1] - LONG[0]
        print(f"  not explained       {left / 1e6:7.1f} MB   {left / between:.0f} bytes a step")
        session.close()
        began = time.perf_counter()
        read_trace(file)
        seconds = time.perf_counter() - began
        print(f"  opening its trace   {seconds:7.2f} s    {file.stat().st_size / 1e6:.1f} MB")


def _in_use() -> int:
    gc.collect()
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return memory_in_use([find_device("auto")])


def cache_room(lockstep: Lockstep) -> int:
    """Bytes allocated for keys and values, filled or not."""
    return sum(
        tensor.untyped_storage().nbytes()
        for cache in lockstep.caches
        for layer in cache.layers
        if isinstance(layer, DynamicLayer)
        for tensor in _keys_and_values(layer)
        if tensor is not None
    )


def _keys_and_values(layer: DynamicLayer) -> tuple[torch.Tensor | None, ...]:
    return layer.buffers if isinstance(layer, FixedLayer) else (layer.keys, layer.values)


def _deep_size(root: object) -> int:
    """Bytes of all objects reached from one, but for types and modules."""
    seen: set[int] = set()
    todo, total = [root], 0
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, type):
            continue
        seen.add(id(value))
        # As Python allocates it: in multiples of 16 bytes.
        total += -(-sys.getsizeof(value) // 16) * 16
        todo += gc.get_referents(value)
    return total


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
