"""Linear layers of any model on a CPU, which multiply a few rows as our step does."""

from collections.abc import Iterable
from typing import TypeGuard

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .kernels.products import FEW, multiplies, product, product_room
from .kernels.program import Program
from .kernels.task import INPUT, OUTPUT, ROWS, readable


class FastLinears:
    """Has the linear layers of models multiply a few rows by our products; `remove` puts the stock
    ones back. The weights must stay where they are until then."""

    def __init__(self, models: Iterable[PreTrainedModel]) -> None:
        self._modules: list[nn.Module] = []
        for module in {module: None for model in models for module in model.modules()}:
            # Some move their inputs between devices.
            if not _is_linear(module) or "forward" in vars(module):
                continue
            weight = module.weight
            if isinstance(module, Conv1D):
                if readable(weight):
                    # It lies as [inputs, outputs]: the same, but lying as other layers' do.
                    weight.data = weight.data.T.contiguous().T
                weight = weight.T
            if multiplies(weight):
                vars(module)["forward"] = _Forward(module, weight)
                self._modules.append(module)

    def remove(self) -> None:
        for module in self._modules:
            del vars(module)["forward"]
        self._modules = []


class Product:
    """xWᵀ + b of 1 to `FEW` rows x [..., inputs], in the dtype of the weight [outputs, inputs]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
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
    def __init__(self, module: nn.Linear, weight: Tensor) -> None:
        self._stock, self._product = module.forward, Product(weight, module.bias)
        self._most, self._dtype = FEW * weight.shape[1], weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        few = 0 < x.numel() <= self._most and x.dtype == self._dtype
        return self._product(x) if few else self._stock(x)


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """A subclass may compute something else; GPT-2's Conv1D is a linear layer transposed."""
    return type(module) in (nn.Linear, Conv1D)
