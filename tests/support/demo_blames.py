"""Blames of the size of a real model's, for tests of the blame screen."""

import random
from pathlib import Path

import msgspec
from prunetui.engine.trace.blame import (
    Blame,
    Cumulative,
    NextToken,
    Part,
    PartBlame,
    WhereInDepth,
)
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Lane
from prunetui.engine.trace.trace import Trace

from .blames import OUTSIDE, attention, in_text, mlp
from .traces import make_header, make_step

CLIPS, FRIENDS = (18, " clips"), (22, " friends")
LANE_KL = 3.42

NATALIA = Path(__file__).parents[1] / "data" / "natalia.trace.jsonl"


def form(kl: float | None, token: tuple[int, str] = FRIENDS, gap: float = -1.5) -> NextToken:
    return NextToken(kl=kl, gap=gap, token=token[0], text=token[1])


def blame_of_parts(parts: list[Part], best: Part, lane: int = 1, depth: int = 30) -> Blame:
    """A blame in which one part returns the baseline's token and the others move it a little."""
    rng = random.Random(len(parts))
    blamed: list[PartBlame] = []
    for part in parts:
        given, alone = rng.uniform(-0.25, 0.6), rng.uniform(0.001, 0.4)
        back, only = form(LANE_KL - given, gap=-1.5 + given), form(alone, CLIPS, 1.0 - alone)
        if part == best:
            back, only = form(0.318, CLIPS, 1.25), form(3.1, FRIENDS, -0.9)
        blamed.append(PartBlame(part=part, given_back=back, alone=only))
    points = 2 * depth + 1
    at_best = 2 * (best.layer or 0) + 1
    every = [
        form(LANE_KL - 0.02 * p if p < at_best else 0.3 * (1 - p / points))
        for p in range(points - 1)
    ]
    last = [
        form(LANE_KL - 0.01 * p if p < at_best else 0.5 * (1 - p / points))
        for p in range(points - 1)
    ]
    tried = {position: form(0.4, CLIPS) for position in (0, 38, 57, 66, 71)}
    tried |= {position: form(2.9) for position in (72, 73, 75)}
    return Blame(
        lane=lane,
        tokens="baseline",
        baseline=form(0.0, CLIPS, 2.0),
        pruned=form(LANE_KL),
        floor=2.5e-9,
        parts=blamed,
        cumulative=Cumulative(parts=[best], after=[form(0.318, CLIPS, 1.25)], forms=len(parts)),
        seconds=1.5,
        in_text=in_text(71, dict(sorted(tried.items())), prompt=69),
        in_depth=WhereInDepth(last=[*last, form(0.0, CLIPS)], every=[*every, form(0.0, CLIPS)]),
    )


def demo_trace(blame: Blame | None = None, step: int = 7) -> Trace:
    """The demo's trace, with a blame of its lane drop:attn=8."""
    trace = read_trace(NATALIA)
    if blame is None:
        blame = blame_of_parts(
            [attention(n) for n in (5, 6, 7, 9, 25, 26, 28, 29)], attention(25), 2
        )
    trace.add_blame(step, blame)
    return trace


def wanda_trace(layers: int, *, outside: bool = False) -> Trace:
    """A made-up trace whose first variant prunes every sublayer."""
    header = make_header(layers=layers)
    lane = Lane(
        name="wanda:0.5", recipe="wanda:0.5", dropped_attention=[], dropped_mlp=[], sparsity=0.5
    )
    trace = Trace(msgspec.structs.replace(header, lanes=[header.lanes[0], lane, *header.lanes[2:]]))
    for number in range(8):
        trace.append(make_step(number, layers=layers))
    parts = [make(layer) for layer in range(layers) for make in (attention, mlp)]
    blame = blame_of_parts([*parts, *[OUTSIDE] * outside], attention(layers - 5), 1, layers)
    trace.add_blame(6, blame)
    return trace
