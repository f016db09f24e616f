"""Seconds of a blame over those of a prefill of the same text."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from prunetui.engine.blame.pruned_lane import Form, PrunedLane
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.options import Options
from prunetui.engine.variants.builder import LaneModel, VariantBuilder, open_builder
from prunetui.engine.variants.recipes import parse

RECIPES = ("drop:attn=8", "drop:mlp=8", "drop:attn=[22,23,24,25,26,27,28,29]")
POSITIONS = 160
"""Tokens of the demo's prompt and 100 steps."""
ROUNDS = 3


def blaming(dtype: str) -> None:
    """Compare a blame of 8 dropped sublayers with prefills of one lane, and of as many rows."""
    options = Options(dtype=dtype)  # pyright: ignore[reportArgumentType]
    builder = open_builder(options, lambda *_: None)
    tokens = [100 + number * 37 % 1000 for number in range(POSITIONS)]
    for recipe in RECIPES:
        model = builder.build(parse(recipe))
        lane = PrunedLane(builder.baseline, model)
        whole, none = frozenset(lane.parts), Form()
        forms = [whole, none, *(whole - {x} for x in lane.parts), *(none | {x} for x in lane.parts)]
        runs: dict[str, Callable[[], object]] = {
            "one lane": partial(_prefill, builder, 1, tokens),
            "all rows": partial(_prefill, builder, len(forms), tokens),
            "proof": partial(_prove, builder, model, forms),
            "parts": partial(_read, lane, forms, tokens),
            "rounds": partial(_give_back, lane, tokens),
        }
        one, rows, proof, parts, rounds = _interleaved(runs)
        print(f"  {recipe}: {lane.need(forms, POSITIONS, 1)}")
        print(f"    a lane's prefill {one * 1e3:7.1f} ms, one of {len(forms)} rows", end="")
        print(f" {rows * 1e3:8.1f} ms")
        names = ("proof", "given back and alone", "and cumulative, all eight rounds")
        seconds = 0.0
        for name, added in zip(names, (proof, parts, rounds), strict=True):
            seconds += added
            print(f"    {name:<33}{seconds * 1e3:8.1f} ms", end="")
            print(f"   {seconds / one:5.2f} × a lane's prefill, {seconds / rows:.2f} × all rows'")


def _prefill(builder: VariantBuilder, rows: int, tokens: list[int]) -> None:
    lockstep = Lockstep([(builder.baseline, Dropped())] * rows)
    lockstep.install()
    try:
        lockstep.prefill(torch.tensor([tokens] * rows)).z.argmax(-1).cpu()
    finally:
        lockstep.remove()


def _prove(builder: VariantBuilder, model: LaneModel, forms: list[Form]) -> None:
    """What comes before the forms of a lane are read for the first time."""
    lane = PrunedLane(builder.baseline, model)
    lane.need(forms, POSITIONS, 1)
    lane.readers[0].work([], 1)


def _read(lane: PrunedLane, forms: list[Form], tokens: list[int]) -> None:
    """The next token of every form."""
    for z in lane.logits(tokens, forms, [len(tokens) - 1], lambda _: None):
        z.argmax(-1).cpu()


def _give_back(lane: PrunedLane, tokens: list[int]) -> None:
    """Read the forms of all rounds after the first in which parts are given back one by one, the
    last part first: the most that a blame reads."""
    kept = lane.parts[:-1]
    while kept:
        _read(lane, [frozenset(kept) - {part} for part in kept], tokens)
        kept = kept[:-1]


def _interleaved(runs: dict[str, Callable[[], object]]) -> list[float]:
    """Median seconds of each; a machine that slows down slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            # What comes first allocates and tunes.
            if number:
                seconds[name].append(time.perf_counter() - began)
    return [median(of_run) for of_run in seconds.values()]


if __name__ == "__main__":
    blaming("auto")
