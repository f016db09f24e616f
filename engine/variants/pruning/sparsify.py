"""Pruning of one matrix: magnitude, Wanda, SparseGPT. W is [out, in], float32."""

import torch
from torch import Tensor

from ..recipes import Pattern
from .masks import lowest_of_groups, lowest_of_matrix, lowest_of_rows

BLOCK = 128
"""Columns of a SparseGPT block; fewer where whole groups of M would not fit."""
DAMPING = 0.01
"""Share of H's mean diagonal that is added to the diagonal."""


def magnitude(weight: Tensor, sparsity: float | Pattern) -> Tensor:
    """Zero the weights that are smallest in their matrix, or in their group (Han et al. 2015)."""
    scores = weight.abs()
    if isinstance(sparsity, Pattern):
        return weight.masked_fill(lowest_of_groups(scores, sparsity), 0)
    return weight.masked_fill(lowest_of_matrix(scores, sparsity), 0)


def wanda(weight: Tensor, input_squares: Tensor, sparsity: float | Pattern) -> Tensor:
    """Zero the lowest |W_ij| · ‖X_j‖₂ of each output row, or of each group (Sun et al. 2023).

    input_squares: [in], the sum over calibration tokens of X_j².
    """
    scores = weight.abs() * input_squares.sqrt()
    if isinstance(sparsity, Pattern):
        return weight.masked_fill(lowest_of_groups(scores, sparsity), 0)
    return weight.masked_fill(lowest_of_rows(scores, sparsity), 0)


def sparsegpt(weight: Tensor, hessian: Tensor, sparsity: float | Pattern) -> Tensor:
    """Zero weights column by column; later columns compensate (Frantar & Alistarh 2023).

    hessian: [in, in], (2/n) Σ X Xᵀ over n calibration tokens. A block's mask is chosen when the
    block is reached, over all its rows; N:M groups are chosen when their first column is.
    """
    weight, hessian = weight.clone(), hessian.clone()
    columns = weight.shape[1]
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    weight[:, dead] = 0
    diagonal += DAMPING * diagonal.mean()
    # Row i of the upper factor U, UᵀU = H⁻¹, says how column i's error moves to later columns.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    group = sparsity.m if isinstance(sparsity, Pattern) else 1
    size = max(BLOCK // group, 1) * group
    for begin in range(0, columns, size):
        end = min(begin + size, columns)
        block, factor = weight[:, begin:end], upper[begin:end, begin:end]
        mask = torch.zeros_like(block, dtype=torch.bool)
        if not isinstance(sparsity, Pattern):
            mask = lowest_of_matrix((block / factor.diagonal()).square(), sparsity)
        errors = torch.zeros_like(block)
        for column in range(end - begin):
            if isinstance(sparsity, Pattern) and column % sparsity.m == 0:
                next_m = slice(column, column + sparsity.m)
                scores = (block[:, next_m] / factor.diagonal()[next_m]).square()
                mask[:, next_m] = lowest_of_groups(scores, sparsity)
            pruned = block[:, column].masked_fill(mask[:, column], 0)
            errors[:, column] = (block[:, column] - pruned) / factor[column, column]
            block[:, column:] -= errors[:, column : column + 1] * factor[column, column:]
            block[:, column] = pruned
        weight[:, end:] -= errors @ upper[begin:end, end:]
    return weight
