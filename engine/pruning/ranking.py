"""Which sublayers matter least: plain numbers, for which no torch is needed."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec

from ..errors import UserError
from ..recipes import Drop

KINDS = ("attn", "mlp")


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
    part: Drop, count: int, similarity: Similarity, dropped: Mapping[str, AbstractSet[int]]
) -> list[tuple[str, int]]:
    """The sublayers that `count` more of the part's kind close, most similar first.

    `dropped` has the layers that are closed already, by `KINDS`.
    """
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
