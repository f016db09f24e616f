"""The matrices inside a layer that weight pruning prunes, and what they are multiplied by."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

ROUTERS = {"gate", "router", "shared_expert_gate"}
"""Names beside `experts`, in transformers."""

Inputs = Iterable[tuple[int, Tensor]]
"""Numbers of matrices and what each is about to be multiplied by, [tokens, in]."""


@dataclass(frozen=True, eq=False)
class Matrices:
    """Those of one parameter: a linear layer's one, or one for each expert of a mixture.

    Iterating gives them one by one, [out, in], float32.
    """

    module: nn.Module
    name: str
    transposed: bool
    inputs: Callable[..., Inputs]
    """Of the arguments that the module is called with."""

    def __iter__(self) -> Iterator[Tensor]:
        for matrix in self._stack(self.module.get_parameter(self.name)):
            yield matrix.float().contiguous()

    @property
    def shape(self) -> torch.Size:
        """[matrices, out, in]"""
        return self._stack(self.module.get_parameter(self.name)).shape

    def replace(self, matrices: Iterable[Tensor]) -> None:
        """Give the module a parameter of its own: other models may share the one that it has."""
        own = torch.empty_like(self.module.get_parameter(self.name))
        for place, matrix in zip(self._stack(own), matrices, strict=True):
            place.copy_(matrix)
        setattr(self.module, self.name, nn.Parameter(own, requires_grad=False))

    def watch(self, see: Callable[[int, Tensor], None]) -> RemovableHandle:
        """Have all inputs seen."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = inspect.signature(module.forward).bind(*args, **kwargs).arguments.values()
            for number, x in self.inputs(*given):
                see(number, x)

        return self.module.register_forward_pre_hook(hook, with_kwargs=True)

    def _stack(self, parameter: Tensor) -> Tensor:
        stack = parameter if parameter.dim() == 3 else parameter[None]
        return stack.mT if self.transposed else stack


def matrices(layer: nn.Module) -> list[Matrices]:
    """All but what routes tokens to the experts of a mixture: pruned, it would choose others."""
    found: list[Matrices] = []
    modules = dict(layer.named_modules())
    experts = [path for path in modules if f".{path}".endswith(".experts")]
    mixtures = [path.removesuffix("experts") for path in experts]
    for path, module in modules.items():
        if isinstance(module, nn.Linear | Conv1D):
            inside = [path.removeprefix(of) for of in mixtures if path.startswith(of)]
            if not any(ROUTERS.intersection(names.split(".")) for names in inside):
                # GPT-2's Conv1D is a linear layer transposed.
                found.append(Matrices(module, "weight", isinstance(module, Conv1D), _of_linear))
        elif is_experts(module):
            mixed = _Experts(module)
            found.append(Matrices(module, mixed.up, mixed.transposed, mixed.routed))
            found.append(Matrices(module, "down_proj", mixed.transposed, mixed.gated))
    return found


def is_experts(module: nn.Module) -> bool:
    """Whether it has the weights of all experts of a mixture in one parameter, of a layout that
    transformers describes."""
    return hasattr(module, "is_transposed") and hasattr(module, "has_gate")


def _of_linear(x: Tensor) -> Inputs:
    return [(0, x.reshape(-1, x.shape[-1]))]


class _Experts:
    def __init__(self, module: Any) -> None:
        self._module = module
        self.transposed: bool = module.is_transposed
        self.up = "gate_up_proj" if module.has_gate else "up_proj"

    def routed(self, hidden: Tensor, chosen: Tensor, *_weights: Any) -> Inputs:
        """Of tokens, [tokens, in], and the experts that each goes to, [tokens, k]."""
        for expert in range(len(self._module.down_proj)):
            x = hidden[(chosen == expert).any(dim=-1)]
            if len(x):
                yield expert, x

    def gated(self, hidden: Tensor, chosen: Tensor, *_weights: Any) -> Inputs:
        """What comes between the two matrices of an expert."""
        module = self._module
        weights = getattr(module, self.up)
        biases = getattr(module, f"{self.up}_bias") if module.has_bias else None
        for expert, x in self.routed(hidden, chosen):
            weight = weights[expert].T if self.transposed else weights[expert]
            product = linear(x, weight, None if biases is None else biases[expert])
            yield expert, (module._apply_gate if module.has_gate else module.act_fn)(product)
