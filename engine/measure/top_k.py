"""Top-k logits, found in the blocks of the vocabulary with the highest maxima.

On a CPU a maximum is several times as fast as torch's `topk` and `argmax`, which go through each
row one by one. Equal logits, frequent in bfloat16, come in the order of their tokens, as `argmax`
takes them and `topk` does not: the first is the greedy choice.
"""

import torch
from torch import Tensor

LARGE, SMALL = 512, 32
"""Tokens in a block of the vocabulary, and in a block of the candidates left: sorting is slow."""


def topk(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest values and their tokens, each [rows, min(k, vocabulary)], of z [rows,
    vocabulary]."""
    tokens = _among_highest(z, k, LARGE)
    tokens = tokens.gather(-1, _among_highest(z.gather(-1, tokens), k, SMALL))
    tokens = tokens.gather(-1, _descending(z.gather(-1, tokens))[:, :k])
    return z.gather(-1, tokens), tokens


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
    blocks = _descending(maxima)[:, :k].sort(dim=-1).values
    inside = blocks[:, :, None] * block + torch.arange(block, device=values.device)
    outside = torch.arange(whole, size, device=values.device).expand(rows, -1)
    return torch.cat([inside.flatten(1), outside], dim=-1)


def _descending(values: Tensor) -> Tensor:
    """Indices that sort each row in descending order, equal numbers by index."""
    return values.sort(dim=-1, descending=True, stable=True).indices
