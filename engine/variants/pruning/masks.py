"""Masks of the lowest scores: of a matrix, of each of its rows, or of groups of inputs."""

import torch
from torch import Tensor

from ..recipes import Pattern


def lowest_of_matrix(scores: Tensor, sparsity: float) -> Tensor:
    """Mask, bool [out, in], of the int(out · in · sparsity) lowest scores."""
    count = int(scores.numel() * sparsity)
    chosen = scores.flatten().argsort(stable=True)[:count]
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[chosen] = True
    return mask.view_as(scores)


def lowest_of_rows(scores: Tensor, sparsity: float) -> Tensor:
    """Mask, bool [out, in], of the int(in · sparsity) lowest scores of each output row."""
    count = int(scores.shape[1] * sparsity)
    chosen = scores.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)


def lowest_of_groups(scores: Tensor, pattern: Pattern) -> Tensor:
    """Mask, bool [out, in], of the N lowest scores of every M consecutive inputs."""
    groups = scores.reshape(scores.shape[0], -1, pattern.m)
    chosen = groups.argsort(dim=-1, stable=True)[..., : pattern.n]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, chosen, True).view_as(scores)
