"""Linear layers of any model on a CPU, whose products with a few rows are compiled kernels."""

from collections.abc import Iterable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..model.memory import give_back_freed_memory
from ..out_of_memory import roll_back
from .kernels.linear import MAX_ROWS, can_multiply, linear_instruction, linear_scratch_size
from .kernels.packing import PackedWeight
from .packed_weights import pack_weight, unpack_weight
from .runtime.instruction import INPUT, OUTPUT, ROWS, is_readable
from .runtime.interpreter import Interpreter

MAX_PARTS = 4
"""The most batches of `MAX_ROWS` rows, one after the other, that a packed weight multiplies."""


class FastLinears:
    """Replace linear layers' products with a few rows between `install` and `remove`.

    The weights must stay where they are meanwhile. Weights of float32 that fit into fewer bytes are
    stored packed alone, unless something else shares them: the parameter is empty then, and a
    layer's `weight` is unpacked at every access.
    """

    def __init__(self, models: Iterable[PreTrainedModel]) -> None:
        modules = [*{module: None for model in models for module in model.modules()}]
        linears = [module for module in modules if _is_linear(module)]
        for linear in linears:
            if (
                isinstance(linear, Conv1D)
                and not _is_replaced(linear)
                and is_readable(linear.weight)
            ):
                # Stored as [inputs, outputs]: the same numbers, but stored as other layers' are.
                linear.weight.data = linear.weight.data.T.contiguous().T
        self._linears = [
            linear for linear in linears if _is_replaced(linear) or can_multiply(_matrix(linear))
        ]
        self._others = [*set(modules).difference(self._linears)]
        self._shared = {
            parameter for other in self._others for parameter in other.parameters(recurse=False)
        }

    def install(self) -> None:
        """Replace the stock layers; those that a `remove` could not put back stay replaced."""
        with roll_back(self.remove):
            self._replace_all()

    def _replace_all(self) -> None:
        weights: dict[nn.Parameter, Tensor | PackedWeight] = {
            _parameter(linear): vars(linear)["forward"].weight
            for linear in self._linears
            if _is_replaced(linear)
        }
        for linear in self._linears:
            if not _is_replaced(linear):
                self._replace(linear, weights)
        packed = [parameter for parameter, w in weights.items() if isinstance(w, PackedWeight)]
        if packed and not any(map(_is_mapped, set(weights).difference(packed))):
            self._release_files()
            give_back_freed_memory()

    def _replace(
        self, linear: nn.Linear, weights: dict[nn.Parameter, Tensor | PackedWeight]
    ) -> None:
        parameter = _parameter(linear)
        if parameter not in weights:
            weights[parameter] = pack_weight(_matrix(linear))
        weight = weights[parameter]
        if isinstance(weight, PackedWeight) and linear.bias is not None and _is_mapped(linear.bias):
            # Before its address is taken.
            linear.bias.data = linear.bias.data.clone()
        vars(linear)["forward"] = _FastForward(linear, weight)
        if isinstance(weight, PackedWeight) and parameter not in self._shared:
            linear.__class__ = _PACKED_TYPES[type(linear)]
            parameter.data = parameter.new_empty(0)

    def _release_files(self) -> None:
        """Copy what still refers to memory-mapped files: one tensor keeps a whole file mapped."""
        for other in self._others:
            for tensor in (*other.parameters(recurse=False), *other.buffers(recurse=False)):
                if _is_mapped(tensor):
                    tensor.data = tensor.data.clone()

    def remove(self) -> None:
        """Put the stock layers back. After an error, out of memory say, it can be called again, or
        `install`."""
        for linear in self._linears:
            if not _is_replaced(linear):
                continue
            parameter, weight = _parameter(linear), stored_weight(linear)
            if isinstance(weight, PackedWeight) and not parameter.numel():
                unpacked = unpack_weight(weight)
                parameter.data = unpacked.T if isinstance(linear, Conv1D) else unpacked
            # One packed weight is freed after the other, so that all of them never take memory
            # beside all of the unpacked ones.
            del vars(linear)["forward"], weight
            linear.__class__ = _STOCK_TYPES.get(type(linear), type(linear))


def stored_weight(module: nn.Module) -> Tensor | PackedWeight:
    """A module's weight as a product with a few rows reads it."""
    forward = vars(module).get("forward")
    return forward.weight if isinstance(forward, _FastForward) else module.get_parameter("weight")


class FastLinear:
    """xWᵀ + b for 1 to `MAX_ROWS` rows x [..., inputs], in the dtype of the weight [outputs,
    inputs]."""

    def __init__(self, weight: Tensor | PackedWeight, bias: Tensor | None = None) -> None:
        self._interpreter = Interpreter([linear_instruction([(weight, bias)])], weight.dtype)
        self._outputs, self._inputs = weight.shape

    def __call__(self, x: Tensor) -> Tensor:
        x, rows = x.contiguous(), x.numel() // self._inputs
        out = x.new_empty(*x.shape[:-1], self._outputs)
        (fields,) = self._interpreter.table
        fields[ROWS], fields[INPUT], fields[OUTPUT] = rows, x.data_ptr(), out.data_ptr()
        self._interpreter.run(linear_scratch_size(rows, self._inputs))
        return out


class _FastForward:
    """The `forward` of a replaced layer: the kernel for a few rows, else the stock layer."""

    def __init__(self, module: nn.Linear, weight: Tensor | PackedWeight) -> None:
        self.weight = weight
        self._stock, self._product = module.forward, FastLinear(weight, module.bias)
        # Unpacking a weight takes as long as reading it many times.
        self._max_rows = MAX_ROWS * MAX_PARTS if isinstance(weight, PackedWeight) else MAX_ROWS

    def __call__(self, x: Tensor) -> Tensor:
        inputs = self.weight.shape[1]
        rows = x.numel() // inputs
        if x.dtype != self.weight.dtype or not 0 < rows <= self._max_rows:
            return self._stock(x)
        if rows <= MAX_ROWS:
            return self._product(x)
        parts = [self._product(part) for part in x.reshape(rows, inputs).split(MAX_ROWS)]
        return torch.cat(parts).view(*x.shape[:-1], -1)


class _PackedLinear(nn.Linear):
    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return unpack_weight(vars(self)["forward"].weight)


class _PackedConv1D(Conv1D):
    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return unpack_weight(vars(self)["forward"].weight).T


_PACKED_TYPES: dict[type, type] = {nn.Linear: _PackedLinear, Conv1D: _PackedConv1D}
_STOCK_TYPES = {packed: stock for stock, packed in _PACKED_TYPES.items()}


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a plain linear layer; GPT-2's Conv1D is one, transposed.

    A subclass may compute something else, and a `forward` of its own move its inputs between
    devices.
    """
    is_plain = type(module) in _PACKED_TYPES and "forward" not in vars(module)
    return is_plain or _is_replaced(module)


def _is_replaced(module: nn.Module) -> bool:
    return isinstance(vars(module).get("forward"), _FastForward)


def _parameter(linear: nn.Linear) -> nn.Parameter:
    """The parameter itself, also where `weight` is unpacked."""
    parameter = linear._parameters["weight"]
    assert parameter is not None
    return parameter


def _is_mapped(tensor: Tensor) -> bool:
    """Whether a tensor lies in a memory-mapped file."""
    return not tensor.untyped_storage().resizable()


def _matrix(linear: nn.Linear) -> Tensor:
    """The weight [outputs, inputs]."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight
