"""Gates: hooks that keep the outputs of dropped sublayers from the residual stream.

A dropped sublayer still runs and still writes its cache; only its output is replaced. Skipping
the call instead would leave its cache short, and position ids and masks are computed from cache
lengths.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .installed import InstalledHooks


class Gates(InstalledHooks):
    """Forward hooks that replace the outputs of dropped sublayers in the rows that drop them.

    `closed` maps a module to bool [rows], true where its output must not reach the stream.
    """

    def __init__(self, closed: dict[nn.Module, Tensor]) -> None:
        super().__init__()
        self._gates = {
            module: _Gate(rows[:, None], _residual_argument(module))
            for module, rows in closed.items()
            if rows.any()
        }

    def _register(self) -> Iterator[RemovableHandle]:
        for module, gate in self._gates.items():
            yield module.register_forward_hook(gate, with_kwargs=True)


class _Gate:
    def __init__(self, closed: Tensor, residual: str | None) -> None:
        self.closed = closed
        self.residual = residual

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        hidden = first_tensor(output)
        if self.closed.device != hidden.device:
            self.closed = self.closed.to(hidden.device)
        # OPT folds rows and positions into one dimension; rows come first in either layout.
        rows = hidden.reshape(self.closed.shape[0], -1)
        if self.residual:
            bound = inspect.signature(module.forward).bind(*args, **kwargs)
            rows = torch.where(
                self.closed, bound.arguments[self.residual].reshape(rows.shape), rows
            )
        else:
            # Not a product with 0, which would turn an overflow into NaN.
            rows = rows.masked_fill(self.closed, 0)
        gated = rows.view(hidden.shape)
        if not isinstance(output, tuple | list):
            return gated
        # A named tuple's constructor takes its fields one by one.
        make = getattr(output, "_make", type(output))
        return make((gated, *output[1:]))


def first_tensor(value: Any) -> Tensor:
    """The main output of a module: the only one or the first of several."""
    return value[0] if isinstance(value, tuple | list) else value


def _residual_argument(module: nn.Module) -> str | None:
    """Name of the argument that the module itself adds to its output (BLOOM, MPT's ffn), if any."""
    return "residual" if "residual" in inspect.signature(module.forward).parameters else None
