"""Seconds and memory that lanes take for the demo's options and texts, over lm-eval's own run of
one model."""

import copy
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lm_eval.api.instance import Instance
from prunetui.engine.evaluation.generator import LaneGenerator
from prunetui.engine.evaluation.harness.opening import open_harness_tasks
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.reader import LaneReader
from prunetui.engine.evaluation.requests import (
    Continuation,
    Continuations,
    Prompt,
    Rating,
    Request,
)
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
        alone, five, one, two = _interleaved(
            {name: functools.partial(rate, requests) for name, rate in runs.items()}
        )
        print(f"  {task:<12} lm-eval {alone:6.2f} s   ", end="")
        print(f"baseline {one / alone:.2f} ×, five lanes {five / alone:.2f} ×; ", end="")
        print(f"{late} adds {(two - one) / alone:.2f}")
    for name in ("lm-eval", "five"):
        command = [sys.executable, "-m", "tests.bench.evaluation", name, dtype]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"  peak of {name:<8} + {json.loads(done.stdout.splitlines()[-1]) / 1e6:7.1f} MB")


def writing(dtype: str) -> None:
    """Compare the seconds in which five lanes write the demo's sums, with all that is measured of
    them, with lm-eval's for one model."""
    builder = _open_builder(dtype)
    depth = builder.loaded.model.config.num_hidden_layers
    prompts: list[Prompt] = []

    class Recorder:
        def generate(self, asked: Sequence[Prompt], _report: object) -> list[Continuations]:
            prompts.extend(asked)
            return [Continuations([Continuation([], "", None, None)], []) for _ in asked]

    none: Any = None
    generator: Any = Recorder()
    (task,) = open_harness_tasks(["additions_gen"], _evaluated(builder), none, generator)
    items = task.answer(0, ITEMS, _silent)
    five = LaneGenerator(_evaluated(builder, "control", *default_variants(depth)))
    stock = _stock_model(builder)
    instances = [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(
                item.contexts[0],
                {"until": item.until, "max_gen_toks": item.max_new_tokens, "do_sample": False},
            ),
            idx=0,
        )
        for item in items
    ]
    runs: dict[str, Callable[[], object]] = {
        "lm-eval": lambda: stock.generate_until(instances, disable_tqdm=True),
        "five": lambda: five.generate(prompts, _silent),
    }
    # The lockstep is proven at the first call.
    five.generate(prompts[:1], _silent)
    alone, lanes = _interleaved(runs)
    print(f"  additions_gen lm-eval {alone:6.2f} s   five lanes {lanes / alone:.2f} ×")


def _interleaved(runs: dict[str, Callable[[], object]]) -> list[float]:
    """Median seconds of each; a machine that slows down slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return [median(of_run) for of_run in seconds.values()]


def _silent(*_: object) -> None:
    pass


def _open_builder(dtype: str) -> VariantBuilder:
    return open_builder(Options(dtype=dtype), _silent)  # pyright: ignore[reportArgumentType]


def _evaluated(builder: VariantBuilder, *recipes: str) -> EvaluatedLanes:
    models, _ = builder.build_lanes([parse(recipe) for recipe in recipes])
    return EvaluatedLanes(builder.loaded, models, Options(), SETTINGS, _silent)


def _open(dtype: str) -> tuple[VariantBuilder, dict[str, list[Request]]]:
    """The demo model, and the requests of each task."""
    builder = _open_builder(dtype)
    requests: list[Request] = []

    class Recorder:
        def rate(self, asked: Sequence[Request], _report: object) -> list[Rating]:
            requests.extend(asked)
            return [Rating([0.0], [False], []) for _ in asked]

    none: Any = None
    calls = {}
    for task in open_harness_tasks(TASKS, _evaluated(builder), Recorder(), none):  # pyright: ignore[reportArgumentType]
        requests.clear()
        task.answer(0, ITEMS, _silent)
        calls[task.record.name] = [*requests]
    return builder, calls


def _lanes(builder: VariantBuilder, *recipes: str) -> Callable[[list[Request]], object]:
    reader = LaneReader(_evaluated(builder, *recipes))
    return lambda requests: reader.rate(requests, _silent)


def _stock_model(builder: VariantBuilder) -> Any:
    """lm-eval's own class over the demo model."""
    from lm_eval.models.huggingface import HFLM

    # Its constructor has lost its type.
    make: Any = HFLM
    return make(
        pretrained=builder.loaded.model,
        tokenizer=copy.deepcopy(builder.loaded.tokenizer),
        backend="causal",
        batch_size=SETTINGS.batch_size,
    )


def _stock(builder: VariantBuilder) -> Callable[[list[Request]], object]:
    """lm-eval's own rating of requests by one model."""
    rate = _stock_model(builder)._loglikelihood_tokens  # noqa: SLF001

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
