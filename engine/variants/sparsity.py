"""How sparse the weights of a variant are, and in which pattern."""

import itertools
from dataclasses import dataclass

from torch import Tensor

from ..model.dropped import Dropped
from ..model.weight_group import WeightGroup
from .pruning.matrices import matrices

PATTERNS = ((2, 4), (4, 8))
"""N:M that are looked for; the first implies the second."""


@dataclass(frozen=True)
class Sparsity:
    """Of the matrices inside the decoder layers, but for those of dropped sublayers."""

    zeros: float
    """Share of weights that are 0."""
    pattern: str | None
    """N:M, if N of every M consecutive inputs are 0 in every matrix."""


def find_sparsity(group: WeightGroup, dropped: Dropped) -> Sparsity:
    """Count zeros of the matrices in the layers, those of dropped sublayers left out."""
    zeros = total = 0
    left_out = {part for module in group.anatomy.sublayers(dropped) for part in module.modules()}
    fits = dict.fromkeys(PATTERNS, True)
    for layer in group.anatomy.layers:
        held = [some for some in matrices(layer.module) if some.module not in left_out]
        for matrix in itertools.chain(*held):
            zero = matrix == 0
            zeros += int(zero.sum())
            total += zero.numel()
            for n, m in PATTERNS:
                fits[n, m] = fits[n, m] and _fits(zero, n, m)
    found = [f"{n}:{m}" for (n, m), fit in fits.items() if fit and total]
    return Sparsity(zeros / total if total else 0.0, found[0] if found else None)


def _fits(zero: Tensor, n: int, m: int) -> bool:
    """At least N zeros in every M consecutive inputs of [out, in]."""
    if zero.shape[1] % m:
        return False
    return bool((zero.reshape(zero.shape[0], -1, m).sum(dim=-1) >= n).all())
