"""Weights of linear layers that read the same input, laid out as the rows of one matrix.

One product with that matrix gives the outputs of all of them. Each layer's own parameter is a view
of its rows, so that nothing else changes of the model, and no weight is in memory twice.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedModel

from ..out_of_memory import out_of_memory

log = logging.getLogger(__name__)

_SIBLINGS = {("q_proj", "k_proj", "v_proj"): ("o_proj",), ("gate_proj", "up_proj"): ()}
"""Names of layers that read the same input, and of those whose weights are laid out after theirs.

Weights are loaded in the order of their names. Moved alone, q, k and v would leave gaps around o
that are too small for those of the next layer, and the memory would be fragmented.
"""


def is_worthwhile(device: torch.device) -> bool:
    """Whether products are so fast there that fewer of them save time."""
    return device.type == "cuda"


@torch.no_grad()
def fuse_weights(model: PreTrainedModel, *relatives: PreTrainedModel) -> None:
    """Lay out the weights of sibling layers, and their biases, next to one another.

    Done on CUDA alone, a group at a time, with as much memory as the largest group takes; where
    that is not there, the rest stay as they are. So do layers that are not plain, and those that
    share a weight with another layer or with a layer of `relatives`: laid out beside others, it
    would be in memory twice.
    """
    if not is_worthwhile(model.device):
        return
    uses = Counter(
        id(parameter)
        for each in (model, *relatives)
        for _, parameter in each.named_parameters(remove_duplicate=False)
    )
    try:
        for module in model.modules():
            for names, followers in _SIBLINGS.items():
                siblings = [getattr(module, name, None) for name in names]
                if weights := _own_parameters(siblings, "weight", uses):
                    after = [getattr(module, name, None) for name in followers]
                    others = _own_parameters(after, "weight", uses) or []
                    _lay_out(weights + [x for x in others if _is_alike(x, weights[0])])
                if biases := _own_parameters(siblings, "bias", uses):
                    _lay_out(biases)
    except Exception as error:
        if not out_of_memory(error):
            raise
        log.warning("no memory to lay out more weights of %s", model.name_or_path, exc_info=True)


def fused_parameters(linears: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None] | None:
    """Weight [sum of outputs, inputs] and bias [sum of outputs] of layers that lie next to one
    another in memory, as views; None if they do not."""
    if not all(map(_is_plain, linears)):
        return None
    weight = _joined([linear.weight for linear in linears])
    biases = [linear.bias for linear in linears if linear.bias is not None]
    if weight is None or not biases:
        return weight if weight is None else (weight, None)
    bias = _joined(biases) if len(biases) == len(linears) else None
    return None if bias is None else (weight, bias)


def _own_parameters(
    linears: Sequence[object], kind: str, uses: Counter[int]
) -> list[nn.Parameter] | None:
    """The weights or biases of plain layers that can be joined and nothing else uses; None if that
    is not so of all."""
    parameters = [getattr(linear, kind) for linear in linears if _is_plain(linear)]
    if (
        parameters
        and len(parameters) == len(linears)
        and all(_is_movable(x) and uses[id(x)] == 1 for x in parameters)
        and all(_is_alike(x, parameters[0]) for x in parameters)
        and len({x.shape[1:] for x in parameters}) == 1
    ):
        return parameters
    return None


def _lay_out(parameters: list[nn.Parameter]) -> None:
    """Move parameters to one new storage, in this order."""
    storage = torch.cat([parameter.detach().flatten() for parameter in parameters])
    parts = storage.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view(parameter.shape)


def _joined(tensors: Sequence[Tensor]) -> Tensor | None:
    """The tensors as one, along their first dimension, if they lie so in one storage."""
    first = tensors[0].detach()
    begin = end = first.storage_offset()
    for tensor in tensors:
        if (
            tensor.untyped_storage() is not first.untyped_storage()
            or tensor.storage_offset() != end
            or not tensor.is_contiguous()
            or (tensor.dtype, tensor.shape[1:]) != (first.dtype, first.shape[1:])
        ):
            return None
        end += tensor.numel()
    return first.as_strided((end - begin,), (1,)).view(-1, *first.shape[1:])


def _is_plain(linear: object) -> TypeGuard[nn.Linear]:
    """Whether calling the layer is the product with its weight and nothing else: it is no quantized
    or wrapped one, and none with a `forward` of its own."""
    return type(linear) is nn.Linear and "forward" not in vars(linear)


def _is_movable(parameter: nn.Parameter | None) -> bool:
    return (
        parameter is not None
        and parameter.is_floating_point()
        and not parameter.is_meta
        # Quantized tensors of a plain layer.
        and not is_traceable_wrapper_subclass(parameter)
    )


def _is_alike(x: Tensor, y: Tensor) -> bool:
    return (x.dtype, x.device) == (y.dtype, y.device)
