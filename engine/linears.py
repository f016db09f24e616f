"""Linear layers of any model on a CPU, which multiply a few rows as our step does."""

from collections.abc import Iterable
from typing import Any, TypeGuard

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .kernels.narrow import Narrow
from .kernels.products import FEW, multiplies, product, product_room
from .kernels.program import Program
from .kernels.task import INPUT, OUTPUT, ROWS, readable
from .memory import give_back_freed_memory
from .narrow import narrowed, widened


class FastLinears:
    """Has the linear layers of models multiply a few rows by our products; `remove` puts the stock
    ones back. The weights must stay where they are until then.

    Weights of float32 that fewer bytes hold are kept in those alone, unless something else shares
    them: the parameter is empty then, and a layer's `weight` made anew whenever it is asked for.
    """

    def __init__(self, models: Iterable[PreTrainedModel]) -> None:
        modules = [*{module: None for model in models for module in model.modules()}]
        # Some move their inputs between devices.
        linears = [m for m in modules if _is_linear(m) and "forward" not in vars(m)]
        for linear in linears:
            if isinstance(linear, Conv1D) and readable(linear.weight):
                # It lies as [inputs, outputs]: the same, but lying as other layers' do.
                linear.weight.data = linear.weight.data.T.contiguous().T
        self._linears = [linear for linear in linears if multiplies(_rows(linear))]
        self._weights: dict[nn.Parameter, Tensor | Narrow] = {}
        others = set(modules).difference(self._linears)
        shared = {parameter for m in others for parameter in m.parameters(recurse=False)}
        try:
            for linear in self._linears:
                self._narrow(linear, shared)
            if any(not parameter.numel() for parameter in self._weights):
                _let_files_go(modules)
                give_back_freed_memory()
            # The addresses of what is left, biases too, do not change from here on.
            for linear in self._linears:
                self._replace(linear)
        except BaseException:
            self.remove()
            raise

    def _narrow(self, linear: nn.Linear, shared: set[nn.Parameter]) -> None:
        parameter: Any = linear.weight
        if parameter not in self._weights:
            self._weights[parameter] = narrowed(_rows(linear))
            if isinstance(self._weights[parameter], Narrow) and parameter not in shared:
                parameter.data = parameter.new_empty(0)

    def _replace(self, linear: nn.Linear) -> None:
        parameter: Any = linear.weight
        vars(linear)["forward"] = _Forward(linear, self._weights[parameter])
        if not parameter.numel():
            linear.__class__ = _NARROW[type(linear)]

    def remove(self) -> None:
        for linear in self._linears:
            vars(linear).pop("forward", None)
            linear.__class__ = _STOCK.get(type(linear), type(linear))
            parameter: Any = linear.weight
            weight = self._weights.get(parameter)
            if isinstance(weight, Narrow) and not parameter.numel():
                wide = widened(weight)
                parameter.data = wide.T if isinstance(linear, Conv1D) else wide
        self._linears, self._weights = [], {}


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
        self._most, self._dtype = FEW * weight.shape[1], weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        few = 0 < x.numel() <= self._most and x.dtype == self._dtype
        return self._product(x) if few else self._stock(x)


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


def _let_files_go(modules: Iterable[nn.Module]) -> None:
    """Of a file that is mapped into memory, what is left of it keeps all of it there."""
    for parameter in {p for module in modules for p in module.parameters(recurse=False)}:
        if not parameter.untyped_storage().resizable():
            parameter.data = parameter.data.clone()


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """A subclass may compute something else; GPT-2's Conv1D is a linear layer transposed."""
    return type(module) in (nn.Linear, Conv1D)


def _rows(linear: nn.Linear) -> Tensor:
    """The weight, [outputs, inputs]."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight
