"""Choice of the least important sublayers, from what was measured of each, without torch."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from ...errors import OptionError
from ...model.dropped import SUBLAYERS, Dropped, Sublayer
from ..recipes import Checkpoint, Drop, Recipe, Restore


class Similarity(msgspec.Struct, frozen=True):
    """Mean cosine similarities, in -1..1, of the residual stream; the higher, the less happens."""

    attention: list[float]
    """Similarity per layer, before and after its attention."""
    mlp: list[float]
    """Similarity per layer, before and after its MLP."""
    runs: list[list[float]]
    """Similarity at `runs[n - 1][i]`, of layer i's input and the output of layer i + n - 1."""

    def of(self, sublayer: Sublayer) -> list[float]:
        return self.attention if sublayer == "attention" else self.mlp


def least_important(part: Drop, count: int, similarity: Similarity, dropped: Dropped) -> Dropped:
    """The `count` most similar sublayers, layers or run of layers of the part's kind, among those
    not dropped yet. Raises `UserError` if no run of so many layers is left."""
    depth = len(similarity.attention)
    gone = dropped.whole_layers
    if part.consecutive:
        runs = similarity.runs[count - 1]
        starts = [
            start for start in range(len(runs)) if gone.isdisjoint(range(start, start + count))
        ]
        if not starts:
            raise OptionError(f"{part} finds no run of {count} layers that are still there")
        start = max(starts, key=lambda layer: runs[layer])
        run = frozenset(range(start, start + count))
        return Dropped(run, run)
    if part.kind == "block":
        left = [layer for layer in range(depth) if layer not in gone]
        layers = frozenset(sorted(left, key=lambda layer: -similarity.runs[0][layer])[:count])
        return Dropped(layers, layers)
    candidates: list[tuple[Sublayer, int]] = [
        (sublayer, layer)
        for sublayer in part.sublayers
        for layer in range(depth)
        if layer not in dropped.of(sublayer)
    ]
    candidates.sort(key=lambda candidate: -similarity.of(candidate[0])[candidate[1]])
    attention, mlp = (
        frozenset(layer for sublayer, layer in candidates[:count] if sublayer == target)
        for target in SUBLAYERS
    )
    return Dropped(attention, mlp)


MeasuredKind = Literal["attn", "mlp", "block"]
"""What KL is measured of: attention sublayers, MLP sublayers, or layers and runs of them."""


MEASURED_KINDS: tuple[MeasuredKind, ...] = ("attn", "mlp", "block")


def measured_kinds(part: Drop) -> tuple[MeasuredKind, ...]:
    return ("attn", "mlp") if part.kind == "joint" else (part.kind,)


def candidates(kind: MeasuredKind, depth: int, dropped: Dropped, run: int = 1) -> list[Dropped]:
    """What can be dropped next: each sublayer, or each run of layers, that is still there."""
    if kind == "block":
        runs = [frozenset(range(start, start + run)) for start in range(depth - run + 1)]
        return [Dropped(layers, layers) for layers in runs if not layers & dropped.whole_layers]
    sublayer: Sublayer = "attention" if kind == "attn" else "mlp"
    left = [layer for layer in range(depth) if layer not in dropped.of(sublayer)]
    return [Dropped(**{sublayer: frozenset({layer})}) for layer in left]


def least_divergent(
    part: Drop, count: int, measured: Sequence[tuple[Dropped, float | None]]
) -> Dropped:
    """The `count` of least KL(p ‖ q) in nats; None, for what is not finite, is more than all.

    Raises `UserError` if no run of layers is left, or nothing is finite.
    """
    if not measured:
        raise OptionError(f"{part} finds no run of {part.count} layers that are still there")
    if all(kl is None for _, kl in measured):
        raise OptionError(
            f"{part} can rank nothing: on its text no KL(p ‖ q) is finite; use another text"
        )
    by_kl = sorted(measured, key=lambda each: math.inf if each[1] is None else each[1])
    least = Dropped()
    for dropped, _ in by_kl[: 1 if part.consecutive else count]:
        least |= dropped
    return least


def droppable_count(part: Drop, depth: int, dropped: Dropped) -> int:
    """Number of sublayers, or layers for `block`, that the part can still drop."""
    if part.kind == "block":
        return depth - len(dropped.whole_layers)
    return sum(depth - len(dropped.of(sublayer)) for sublayer in part.sublayers)


def known_drops(recipe: Recipe, similarity: Similarity | None) -> Dropped | None:
    """Sublayers that a recipe drops; None if only a model can tell.

    The baseline's similarity decides a drop by count if nothing is pruned or dropped before it.
    """
    dropped = Dropped()
    for index, part in enumerate(recipe.parts):
        if isinstance(part, Checkpoint):
            return None
        if isinstance(part, Restore):
            dropped -= part.listed
        if not isinstance(part, Drop):
            continue
        if part.layers:
            dropped |= part.listed
        elif index or similarity is None or part.iterative or part.by == "kl":
            return None
        elif part.count <= droppable_count(part, len(similarity.attention), dropped):
            dropped |= least_important(part, part.count, similarity, dropped)
        else:
            return None
    return dropped
