"""Choice of the least important sublayers, from measured similarities, without torch."""

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
        elif index or similarity is None or part.iterative:
            return None
        elif part.count <= droppable_count(part, len(similarity.attention), dropped):
            dropped |= least_important(part, part.count, similarity, dropped)
        else:
            return None
    return dropped
