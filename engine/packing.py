"""Linear layers on a CPU, their weights packed for oneDNN.

Stock linear layers reach a fraction of the memory's bandwidth at a handful of rows. Packed once
into the blocks that oneDNN multiplies by, the weights are read at close to all of it.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


class PackedLinears:
    """Packs the linear layers of models that may share weights; `remove` unpacks, bit for bit.

    A packed weight takes the place of the plain one, but for one that an embedding reads too.
    Without the operators, or in a dtype that they do not take, all stays as it is.
    """

    def __init__(self, models: Mapping[PreTrainedModel, int]) -> None:
        """`models` and the rows that each multiplies at a step."""
        self._packed: dict[nn.Linear, Tensor] = {}
        self._emptied: list[nn.Linear] = []
        if not _available():
            return
        modules = {module: rows for model, rows in models.items() for module in model.modules()}
        read_elsewhere = {
            parameter.data_ptr()
            for module in modules
            if not _is_linear(module)
            for parameter in module.parameters(recurse=False)
        }
        linears = [
            module
            for module in modules
            if _is_linear(module)
            and module.weight.device.type == "cpu"
            and module.weight.dtype in (torch.float32, torch.bfloat16)
        ]
        by_weight: dict[int, Tensor] = {}
        for module in linears:
            place = module.weight.data_ptr()
            if place not in by_weight:
                by_weight[place] = torch.ops.mkldnn._reorder_linear_weight(
                    _plain(module), modules[module]
                )
            self._packed[module] = by_weight[place]
            vars(module)["forward"] = partial(_forward, by_weight[place], module.bias)
        self._emptied = [m for m in linears if m.weight.data_ptr() not in read_elsewhere]
        for module in self._emptied:
            module.weight.data = module.weight.new_empty(0)
        _leave_the_file(models)

    def remove(self) -> None:
        for module in self._packed:
            del vars(module)["forward"]
        for module in self._emptied:
            # Of models that share a weight, the first has unpacked it for all.
            if not module.weight.numel():
                dense = self._packed[module].to_dense()
                module.weight.data = dense.T.contiguous() if isinstance(module, Conv1D) else dense
        self._packed, self._emptied = {}, []


def _leave_the_file(models: Iterable[PreTrainedModel]) -> None:
    """Copy what is left: one tensor that is still in the file keeps all of it in memory."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    for tensor in {t for model in models for t in (*model.parameters(), *model.buffers())}:
        if tensor.device.type == "cpu" and tensor.numel():
            key = tensor.data_ptr(), tensor.shape
            if key not in copies:
                copies[key] = tensor.data.clone()
            tensor.data = copies[key]


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """A subclass may compute something else; GPT-2's Conv1D is a linear layer transposed."""
    return type(module) in (nn.Linear, Conv1D)


def _plain(module: nn.Linear) -> Tensor:
    """The weight, [out, in]."""
    weight = module.weight.data
    return weight.T.contiguous() if isinstance(module, Conv1D) else weight


def _forward(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
