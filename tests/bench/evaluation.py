"""Seconds and memory that lanes take to rate the demo's options, over lm-eval's own run of one
model."""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from prunetui.engine.evaluation.harness.opening import open_harness_tasks
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.reader import LaneReader
from prunetui.engine.evaluation.requests import Rating, Request
from prunetui.engine.options import Options, default_variants
from prunetui.engine.results.records import Settings
from prunetui.engine.variants.builder import VariantBuilder, open_builder
from prunetui.engine.variants.recipes import parse

TASKS = ("additions", "mmlu_dev")
ITEMS = 16
"""Items of each task."""
ROUNDS = 3
SETTINGS = Settings(tasks=TASKS, limit=ITEMS)


def rating(dtype: str) -> None:
    """Compare the seconds of five lanes, and of one more that begins to drop at two thirds of the
    depth, with lm-eval's."""
    builder, calls = _open(dtype)
    depth = builder.loaded.model.config.num_hidden_layers
    late = f"drop:attn=[{depth * 2 // 3}]"
    runs = {
        "lm-eval": _stock(builder),
        "five": _lanes(builder, "control", *default_variants(depth)),
        "one": _lanes(builder),
        "two": _lanes(builder, late),
    }
    for task, requests in calls.items():
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        # Interleaved, so that a machine that slows down slows all of them.
        for _ in range(ROUNDS):
            for name, rate in runs.items():
                began = time.perf_counter()
                rate(requests)
                seconds[name].append(time.perf_counter() - began)
        alone, five, one, two = (median(seconds[name]) for name in runs)
        print(f"  {task:<12} lm-eval {alone:6.2f} s   ", end="")
        print(f"baseline {one / alone:.2f} ×, five lanes {five / alone:.2f} ×; ", end="")
        print(f"{late} adds {(two - one) / alone:.2f}")
    for name in ("lm-eval", "five"):
        command = [sys.executable, "-m", "tests.bench.evaluation", name, dtype]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"  peak of {name:<8} + {json.loads(done.stdout.splitlines()[-1]) / 1e6:7.1f} MB")


def _silent(*_: object) -> None:
    pass


def _open(dtype: str) -> tuple[VariantBuilder, dict[str, list[Request]]]:
    """The demo model, and the requests of each task."""
    builder = open_builder(Options(dtype=dtype), _silent)  # pyright: ignore[reportArgumentType]
    requests: list[Request] = []

    class Recorder:
        def rate(self, asked: Sequence[Request], _report: object) -> list[Rating]:
            requests.extend(asked)
            return [Rating([0.0], [False], []) for _ in asked]

    none: Any = None
    lanes = EvaluatedLanes(builder.loaded, builder.build_lanes([])[0], Options(), SETTINGS, _silent)
    calls = {}
    for task in open_harness_tasks(TASKS, lanes, Recorder(), none):  # pyright: ignore[reportArgumentType]
        requests.clear()
        task.answer(0, ITEMS, _silent)
        calls[task.record.name] = [*requests]
    return builder, calls


def _lanes(builder: VariantBuilder, *recipes: str) -> Callable[[list[Request]], object]:
    models, _ = builder.build_lanes([parse(recipe) for recipe in recipes])
    lanes = EvaluatedLanes(builder.loaded, models, Options(), SETTINGS, _silent)
    reader = LaneReader(lanes)
    return lambda requests: reader.rate(requests, _silent)


def _stock(builder: VariantBuilder) -> Callable[[list[Request]], object]:
    """lm-eval's own rating of requests by one model."""
    from lm_eval.models.huggingface import HFLM

    # Its constructor has lost its type.
    make: Any = HFLM
    tokenizer = copy.deepcopy(builder.loaded.tokenizer)
    stock = make(
        pretrained=builder.loaded.model,
        tokenizer=tokenizer,
        backend="causal",
        batch_size=SETTINGS.batch_size,
    )
    rate = stock._loglikelihood_tokens  # noqa: SLF001

    def run(requests: list[Request]) -> object:
        return rate(
            [(("", ""), [*each.context], [*each.continuation]) for each in requests],
            disable_tqdm=True,
        )

    return run


def _peak(name: str, dtype: str) -> float:
    """Bytes that a run has at most beside what is there before it."""
    builder, calls = _open(dtype)
    depth = builder.loaded.model.config.num_hidden_layers
    lanes = ("control", *default_variants(depth))
    rate = _stock(builder) if name == "lm-eval" else _lanes(builder, *lanes)
    before = _memory("VmRSS")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        # The peak so far, that of loading, is forgotten.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for requests in calls.values():
        rate(requests)
    return _memory("VmHWM") - before


def _memory(field: str) -> float:
    """Bytes of memory in use (VmRSS) or at the peak (VmHWM)."""
    if torch.cuda.is_available():
        now = field == "VmRSS"
        return torch.cuda.memory_allocated() if now else torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.split(f"{field}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    print(_peak(*sys.argv[1:]))
