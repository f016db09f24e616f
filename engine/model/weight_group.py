"""Weight groups: models that share every parameter that is not their own."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .anatomy import Anatomy, find_anatomy
from .checkpoint_files import CheckpointFiles
from .reference import Reference


@dataclass(frozen=True, eq=False)
class WeightGroup:
    """Lanes that read the same weights are rows of one batch of `model`."""

    model: PreTrainedModel
    anatomy: Anatomy
    name: str = ""
    files: CheckpointFiles | None = None
    """What the weights were read from; of a copy, what its original's were."""
    reference: Reference | None = None
    """What stock transformers makes of the weights; None if they are not those of the files."""
    notes: tuple[str, ...] = ()
    """What was found while loading that a reader of the numbers must know."""

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
        return WeightGroup(model, find_anatomy(model), self.name, self.files, notes=self.notes)


def share_equal_tensors(model: PreTrainedModel, baseline: PreTrainedModel) -> None:
    """Give `model` the baseline's parameter wherever it is equal to its own.

    By every name of a parameter, so that what was tied stays tied, and nothing else is.
    """
    known = dict(baseline.named_parameters(remove_duplicate=False))
    for name, parameter in [*model.named_parameters(remove_duplicate=False)]:
        theirs = known.get(name)
        if theirs is not None and _is_equal(theirs, parameter):
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, theirs)


def _is_equal(one: Tensor, other: Tensor) -> bool:
    alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(one, other)


@contextmanager
def unchanged_weights(model: PreTrainedModel) -> Iterator[None]:
    """Raise `RuntimeError` if a weight of the model is another one afterwards."""
    before = checksums(model)
    yield
    after = checksums(model)
    if changed := [name for name in before if before[name] != after.get(name)]:
        raise RuntimeError(f"weights that were loaded have changed: {', '.join(changed)}")


def checksums(model: PreTrainedModel) -> dict[str, int]:
    """A sum of the bytes of every parameter and buffer, by each of its names."""
    named = itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    known: dict[int, int] = {}
    sums = {}
    for name, tensor in named:
        if id(tensor) not in known:
            known[id(tensor)] = checksum(tensor)
        sums[name] = known[id(tensor)]
    return sums


@torch.inference_mode()
def checksum(tensor: Tensor) -> int:
    """A wrapping sum of a tensor's bytes, eight at a time, which another tensor shares with next to
    no chance."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    if flat.storage_offset() % 8:
        flat = flat.clone()
    whole = len(flat) // 8 * 8
    return int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].sum())
