"""Which sublayers matter least: plain numbers, for which no torch is needed."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec

from ...errors import UserError
from ..recipes import Checkpoint, Drop, Recipe

KINDS = ("attn", "mlp")

Dropped = Mapping[str, AbstractSet[int]]
"""The layers that are closed, by `KINDS`."""


class Similarity(msgspec.Struct, frozen=True):
    """Mean cosine similarities, in -1..1, of the residual stream; the higher, the less happens."""

    attn: list[float]
    """Per layer, before and after its attention."""
    mlp: list[float]
    """Per layer, before and after its MLP."""
    runs: list[list[float]]
    """`runs[n - 1][i]`: input of layer i and output of layer i + n - 1, a run of n layers."""

    def of(self, kind: str) -> list[float]:
        return self.attn if kind == "attn" else self.mlp


def least_important(
    part: Drop, count: int, similarity: Similarity, dropped: Dropped
) -> list[tuple[str, int]]:
    """The sublayers that `count` more of the part's kind close, most similar first."""
    depth = len(similarity.attn)
    gone = dropped["attn"] & dropped["mlp"]
    if part.consecutive:
        runs = similarity.runs[count - 1]
        whole = [
            first for first in range(len(runs)) if gone.isdisjoint(range(first, first + count))
        ]
        if not whole:
            raise UserError(f"{part} finds no run of {count} layers that are still there")
        first = max(whole, key=lambda layer: runs[layer])
        return [(kind, layer) for layer in range(first, first + count) for kind in KINDS]
    if part.kind == "block":
        open_layers = [layer for layer in range(depth) if layer not in gone]
        open_layers.sort(key=lambda layer: -similarity.runs[0][layer])
        return [(kind, layer) for layer in open_layers[:count] for kind in KINDS]
    places = [
        (kind, layer)
        for kind in kinds(part)
        for layer in range(depth)
        if layer not in dropped[kind]
    ]
    places.sort(key=lambda place: -similarity.of(place[0])[place[1]])
    return places[:count]


def kinds(part: Drop) -> tuple[str, ...]:
    """Of the sublayers that the part drops."""
    return (part.kind,) if part.kind in KINDS else KINDS


def droppable(part: Drop, depth: int, dropped: Dropped) -> int:
    """How many of what the part drops there are to drop."""
    if part.kind == "block":
        return depth - len(dropped["attn"] & dropped["mlp"])
    return sum(depth - len(dropped[kind]) for kind in kinds(part))


def known_drops(recipe: Recipe, similarity: Similarity | None) -> dict[str, set[int]] | None:
    """What the recipe closes, by `KINDS`; None if that takes a model to find out.

    The baseline's similarity says what a number of drops closes if nothing is pruned before them.
    """
    dropped: dict[str, set[int]] = {kind: set() for kind in KINDS}
    for place, part in enumerate(recipe.parts):
        if isinstance(part, Checkpoint):
            return None
        if not isinstance(part, Drop):
            continue
        if part.layers:
            for kind in kinds(part):
                dropped[kind].update(part.layers)
        elif place or similarity is None or part.iterative:
            return None
        elif part.count <= droppable(part, len(similarity.attn), dropped):
            for kind, layer in least_important(part, part.count, similarity, dropped):
                dropped[kind].add(layer)
        else:
            return None
    return dropped
