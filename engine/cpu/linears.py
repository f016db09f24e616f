"""Linear layers of any model on a CPU, which multiply a few rows as our step does."""

from collections.abc import Iterable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..model.memory import give_back_freed_memory
from .kernels.linear import FEW, multiplies, product, product_room
from .kernels.packing import Narrow
from .packed_weights import narrowed, widened
from .runtime.instruction import INPUT, OUTPUT, ROWS, readable
from .runtime.interpreter import Program

MOST_PARTS = 4
"""Of `FEW` rows, that are multiplied by a narrow weight one after the other."""


class FastLinears:
    """Has the linear layers of models multiply a few rows by our products, between `install` and
    `remove`. The weights must stay where they are meanwhile.

    Weights of float32 that fewer bytes hold are kept in those alone, unless something else shares
    them: the parameter is empty then, and a layer's `weight` made anew whenever it is asked for.
    """

    def __init__(self, models: Iterable[PreTrainedModel]) -> None:
        modules = [*{module: None for model in models for module in model.modules()}]
        linears = [module for module in modules if _is_linear(module)]
        for linear in linears:
            if isinstance(linear, Conv1D) and not _is_replaced(linear) and readable(linear.weight):
                # It lies as [inputs, outputs]: the same, but lying as other layers' do.
                linear.weight.data = linear.weight.data.T.contiguous().T
        self._linears = [
            linear for linear in linears if _is_replaced(linear) or multiplies(_rows(linear))
        ]
        self._others = [*set(modules).difference(self._linears)]
        self._shared = {
            parameter for other in self._others for parameter in other.parameters(recurse=False)
        }

    def install(self) -> None:
        """Layers that a `remove` could not put back stay as they are."""
        weights: dict[nn.Parameter, Tensor | Narrow] = {
            _parameter(linear): vars(linear)["forward"].weight
            for linear in self._linears
            if _is_replaced(linear)
        }
        try:
            for linear in self._linears:
                if not _is_replaced(linear):
                    self._replace(linear, weights)
            narrow = [parameter for parameter, w in weights.items() if isinstance(w, Narrow)]
            if narrow and not any(map(_is_mapped, set(weights).difference(narrow))):
                self._let_files_go()
                give_back_freed_memory()
        except BaseException:
            self.remove()
            raise

    def _replace(self, linear: nn.Linear, weights: dict[nn.Parameter, Tensor | Narrow]) -> None:
        parameter = _parameter(linear)
        if parameter not in weights:
            weights[parameter] = narrowed(_rows(linear))
        weight = weights[parameter]
        if isinstance(weight, Narrow) and linear.bias is not None and _is_mapped(linear.bias):
            # Before its address is taken.
            linear.bias.data = linear.bias.data.clone()
        vars(linear)["forward"] = _Forward(linear, weight)
        if isinstance(weight, Narrow) and parameter not in self._shared:
            linear.__class__ = _NARROW[type(linear)]
            parameter.data = parameter.new_empty(0)

    def _let_files_go(self) -> None:
        """Of a file that is mapped into memory, what is left of it keeps all of it there."""
        for other in self._others:
            for held in (*other.parameters(recurse=False), *other.buffers(recurse=False)):
                if _is_mapped(held):
                    held.data = held.data.clone()

    def remove(self) -> None:
        """Put the stock layers back. After an error, out of memory say, it can be called again, or
        `install`."""
        for linear in self._linears:
            if not _is_replaced(linear):
                continue
            parameter, weight = _parameter(linear), read_weight(linear)
            if isinstance(weight, Narrow) and not parameter.numel():
                wide = widened(weight)
                parameter.data = wide.T if isinstance(linear, Conv1D) else wide
            # One narrow weight goes after the other, so that all of them never stand beside all
            # of the wide ones.
            del vars(linear)["forward"], weight
            linear.__class__ = _STOCK.get(type(linear), type(linear))


def read_weight(module: nn.Module) -> Tensor | Narrow:
    """What a product with a few rows reads of a module's weight."""
    forward = vars(module).get("forward")
    return forward.weight if isinstance(forward, _Forward) else module.get_parameter("weight")


class Product:
    """xWᵀ + b of 1 to `FEW` rows x [..., inputs], in the dtype of the weight [outputs, inputs]."""

    def __init__(self, weight: Tensor | Narrow, bias: Tensor | None = None) -> None:
        self._program = Program([product([(weight, bias)])], weight.dtype)
        self._outputs, self._inputs = weight.shape

    def __call__(self, x: Tensor) -> Tensor:
        x, rows = x.contiguous(), x.numel() // self._inputs
        out = x.new_empty(*x.shape[:-1], self._outputs)
        (task,) = self._program.table
        task[ROWS], task[INPUT], task[OUTPUT] = rows, x.data_ptr(), out.data_ptr()
        self._program.run(product_room(rows, self._inputs))
        return out


class _Forward:
    def __init__(self, module: nn.Linear, weight: Tensor | Narrow) -> None:
        self.weight = weight
        self._stock, self._product = module.forward, Product(weight, module.bias)
        # To make a weight wide takes as long as reading it many times.
        self._most = FEW * MOST_PARTS if isinstance(weight, Narrow) else FEW

    def __call__(self, x: Tensor) -> Tensor:
        inputs = self.weight.shape[1]
        rows = x.numel() // inputs
        if x.dtype != self.weight.dtype or not 0 < rows <= self._most:
            return self._stock(x)
        if rows <= FEW:
            return self._product(x)
        parts = [self._product(part) for part in x.reshape(rows, inputs).split(FEW)]
        return torch.cat(parts).view(*x.shape[:-1], -1)


class _NarrowLinear(nn.Linear):
    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return widened(vars(self)["forward"].weight)


class _NarrowConv1D(Conv1D):
    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return widened(vars(self)["forward"].weight).T


_NARROW: dict[type, type] = {nn.Linear: _NarrowLinear, Conv1D: _NarrowConv1D}
_STOCK = {narrow: stock for stock, narrow in _NARROW.items()}


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """A subclass may compute something else, and a `forward` of its own move its inputs between
    devices; GPT-2's Conv1D is a linear layer transposed."""
    plain = type(module) in _NARROW and "forward" not in vars(module)
    return plain or _is_replaced(module)


def _is_replaced(module: nn.Module) -> bool:
    return isinstance(vars(module).get("forward"), _Forward)


def _parameter(linear: nn.Linear) -> nn.Parameter:
    """Also where `weight` is made anew."""
    parameter = linear._parameters["weight"]
    assert parameter is not None
    return parameter


def _is_mapped(held: Tensor) -> bool:
    return not held.untyped_storage().resizable()


def _rows(linear: nn.Linear) -> Tensor:
    """The weight, [outputs, inputs]."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight
