"""Weight groups: models that share every parameter that is not their own."""

import copy
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .anatomy import Anatomy, find_anatomy
from .pruning.matrices import matrices

PATTERNS = ((2, 4), (4, 8))
"""N:M that are looked for; the first implies the second."""


@dataclass(frozen=True, eq=False)
class WeightGroup:
    """Lanes that read the same weights are rows of one batch of `model`."""

    model: PreTrainedModel
    anatomy: Anatomy

    def copy(self) -> "WeightGroup":
        """Another model of the same parameters and buffers, whose modules can be given others."""
        shared = {
            id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())
        }
        # What moves tensors between the devices of a spread model may hold tied weights a second
        # time, on another of the devices.
        hooks = [vars(module).get("_hf_hook") for module in self.model.modules()]
        shared |= {id(hook): hook for hook in hooks if hook}
        model = copy.deepcopy(self.model, shared)
        return WeightGroup(model, find_anatomy(model))


def share_equal_tensors(model: PreTrainedModel, baseline: PreTrainedModel) -> None:
    """Have `model` hold the baseline's parameter wherever it is equal to its own."""
    known = dict(baseline.named_parameters())
    for name, parameter in [*model.named_parameters()]:
        theirs = known.get(name)
        if (
            theirs is not None
            and theirs.shape == parameter.shape
            and torch.equal(theirs, parameter)
        ):
            owner = model.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], theirs)
    model.tie_weights()


@dataclass(frozen=True)
class Sparsity:
    """Of the matrices inside the decoder layers, but for those of dropped sublayers."""

    zeros: float
    """Share of weights that are 0."""
    pattern: str | None
    """N:M, if N of every M consecutive inputs are 0 in every matrix."""


def find_sparsity(group: WeightGroup, dropped: Iterable[nn.Module]) -> Sparsity:
    zeros = total = 0
    left_out = {part for sublayer in dropped for part in sublayer.modules()}
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
