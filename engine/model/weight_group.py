"""Weight groups: models that share every parameter in which they do not differ."""

import copy
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .anatomy import Anatomy, find_anatomy
from .checkpoint_files import CheckpointFiles
from .device_map import device_map_of, device_of
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


def share_tensors(model: nn.Module, baseline: nn.Module, names: Iterable[str]) -> None:
    """Give `model` the baseline's parameters of these names, where it has them in that shape."""
    originals = dict(baseline.named_parameters(remove_duplicate=False))
    own = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if name in originals and name in own and originals[name].shape == own[name].shape:
            _set_tensor(model, name, originals[name])


def share_equal_tensors(model: PreTrainedModel, baseline: PreTrainedModel) -> None:
    """Put `model` where the baseline is, with the baseline's parameter wherever it is equal.

    Parameters are moved one by one, so that the devices hold, beside the baseline, those that
    differ and at most one more. Every name of a parameter is replaced, so that tied weights stay
    tied, and no others are.
    """
    originals = dict(baseline.named_parameters(remove_duplicate=False))
    tensors = originals | dict(baseline.named_buffers(remove_duplicate=False))
    device_map = device_map_of(baseline)

    def device_for(name: str) -> torch.device:
        return tensors[name].device if name in tensors else device_of(name, device_map)

    # A function, whose variables do not keep one tensor while the next is moved.
    def replace(names: list[str]) -> None:
        own = model.get_parameter(names[0])
        by_device = {own.device: own}
        for name in names:
            device, original = device_for(name), originals.get(name)
            if device not in by_device:
                by_device[device] = nn.Parameter(own.to(device), requires_grad=False)
            moved = by_device[device]
            equal = original is not None and _is_equal(original, moved)
            _set_tensor(model, name, original if original is not None and equal else moved)

    for names in _tied_names(model):
        replace(names)
    for name, buffer in [*model.named_buffers(remove_duplicate=False)]:
        _set_tensor(model, name, buffer.to(device_for(name)))


def _tied_names(model: PreTrainedModel) -> list[list[str]]:
    """Names of the parameters, those of one tied parameter together."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [*names.values()]


def _set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, tensor)


def _is_equal(x: Tensor, y: Tensor) -> bool:
    alike = (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device)
    return x is y or (alike and torch.equal(x, y))


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
