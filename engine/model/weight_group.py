"""Weight groups: models that share every parameter in which they do not differ."""

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
    """A model and its anatomy; the lanes that read its weights are rows of one batch."""

    model: PreTrainedModel
    anatomy: Anatomy
    name: str = ""
    files: CheckpointFiles | None = None
    """The files of the weights; a copy has those of its original."""
    reference: Reference | None = None
    """Logits of stock transformers; None if the weights are not those of the files."""
    notes: tuple[str, ...] = ()
    """Sentences about the weights that a reader of the numbers must know."""

    def copy(self) -> "WeightGroup":
        """A model that shares all parameters and buffers, and whose modules can get others."""
        shared = {
            id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())
        }
        # The hooks that move tensors between the devices of a spread model may have a second copy
        # of tied weights on another device.
        hooks = [vars(module).get("_hf_hook") for module in self.model.modules()]
        shared |= {id(hook): hook for hook in hooks if hook}
        model = copy.deepcopy(self.model, shared)
        return WeightGroup(model, find_anatomy(model), self.name, self.files, notes=self.notes)


def share_equal_tensors(model: PreTrainedModel, baseline: PreTrainedModel) -> None:
    """Give `model` the baseline's parameter wherever it is equal to its own.

    Every name of a parameter is replaced, so that tied weights stay tied, and no others are.
    """
    originals = dict(baseline.named_parameters(remove_duplicate=False))
    for name, parameter in [*model.named_parameters(remove_duplicate=False)]:
        original = originals.get(name)
        if original is not None and _is_equal(original, parameter):
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, original)


def _is_equal(x: Tensor, y: Tensor) -> bool:
    alike = (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device)
    return alike and torch.equal(x, y)


@contextmanager
def unchanged_weights(model: PreTrainedModel) -> Iterator[None]:
    """Raise `RuntimeError` if the code inside changes a weight of the model."""
    before = checksums(model)
    yield
    after = checksums(model)
    if changed := [name for name in before if before[name] != after.get(name)]:
        raise RuntimeError(f"weights that were loaded have changed: {', '.join(changed)}")


def checksums(model: PreTrainedModel) -> dict[str, int]:
    """Checksums of all parameters and buffers by name; tied ones have several names."""
    named = itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    by_id: dict[int, int] = {}
    by_name = {}
    for name, tensor in named:
        if id(tensor) not in by_id:
            by_id[id(tensor)] = checksum(tensor)
        by_name[name] = by_id[id(tensor)]
    return by_name


@torch.inference_mode()
def checksum(tensor: Tensor) -> int:
    """The sum of a tensor's bytes as wrapping int64, which hardly another tensor has."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    if flat.storage_offset() % 8:
        flat = flat.clone()
    whole = len(flat) // 8 * 8
    return int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].sum())
