"""The residual stream written at its points, and whether the model goes on with what is written."""

import torch
from torch import Tensor

from .anatomy import Anatomy
from .gates import Gates
from .probe import ROWS, is_same, read_tokens
from .residual_stream import StreamHooks
from .weight_group import WeightGroup


def writable_points(anatomy: Anatomy) -> list[bool]:
    """For each point of the stream, as `StreamHooks` numbers them, whether it can be written: not
    between attention and MLP where they run in parallel, as both read the layer's input."""
    return [True, *(point for layer in anatomy.layers for point in (not layer.parallel, True))]


def takes_writes(group: WeightGroup) -> bool:
    """Whether a stream that a reader of `StreamHooks` overwrites in place is what the model goes on
    with: tried with random streams, on which closed gates of all sublayers change nothing."""
    anatomy = group.anatomy
    if not (anatomy.has_known_stream and anatomy.droppable):
        return False
    generator = torch.Generator().manual_seed(0)
    written: list[Tensor] = []
    kept: list[bool] = []

    def write(point: int, stream: Tensor) -> None:
        if written:
            kept.append(is_same(stream.flatten(1), written[-1]))
        if writable[point]:
            random = torch.randn(stream.shape, generator=generator).to(stream)
            stream.copy_(random)
            written.append(random.flatten(1))

    writable = writable_points(anatomy)
    closed = torch.ones(ROWS, dtype=torch.bool)
    sublayers = [part for layer in anatomy.layers for part in (*layer.attention, *layer.mlp)]
    with Gates(dict.fromkeys(sublayers, closed)), StreamHooks(anatomy, write):
        read_tokens(group.model)
    return all(kept)
