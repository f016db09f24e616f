"""Top-k logits, found in the blocks of the vocabulary with the highest maxima.

On a CPU a maximum is several times as fast as torch's `topk` and `argmax`, which go through each
row one by one. Equal logits, frequent in bfloat16, come in the order of their tokens, as `argmax`
takes them and `topk` does not: the first is the greedy choice.
"""

import torch
from torch import Tensor

CPU_BLOCKS = 512, 32
"""Tokens in a block of the vocabulary, and in a block of the candidates left: sorting is slow."""

GPU_BLOCKS = (128,)
"""The same on a GPU, where sorting so few is one launch and a second pass is eight."""


def topk(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest values and their tokens, each [rows, min(k, vocabulary)], of z [rows,
    vocabulary]."""
    values, tokens = z, None
    for block in CPU_BLOCKS if z.device.type == "cpu" else GPU_BLOCKS:
        indices = _among_highest(values, k, block)
        tokens = indices if tokens is None else tokens.gather(-1, indices)
        values = values.gather(-1, indices)
    assert tokens is not None
    descending = _descending(values)
    return descending.values[:, :k], tokens.gather(-1, descending.indices[:, :k])


def argmax(z: Tensor) -> Tensor:
    """Token of the highest logit, the first of equal ones: int64 [rows].

    z: [rows, vocabulary].
    """
    return topk(z, 1)[1][:, 0]


def _among_highest(values: Tensor, k: int, block: int) -> Tensor:
    """Ascending indices into each row that include its k highest: k blocks and the remainder."""
    rows, size = values.shape
    whole = size // block * block
    maxima = values[:, :whole].view(rows, whole // block, block).amax(dim=-1)
    # k numbers of the first k blocks go before any number of the others.
    blocks = _descending(maxima).indices[:, :k].sort(dim=-1).values
    within = torch.arange(block, device=values.device)
    indices = torch.add(within, blocks[:, :, None], alpha=block).flatten(1)
    if whole == size:
        return indices
    outside = torch.arange(whole, size, device=values.device).expand(rows, -1)
    return torch.cat([indices, outside], dim=-1)


def _descending(values: Tensor) -> torch.return_types.sort:
    """Each row in descending order, equal numbers by index."""
    return values.sort(dim=-1, descending=True, stable=True)
