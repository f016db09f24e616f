"""Matrices inside a layer that weight pruning prunes, and their inputs."""

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
"""Names of routers beside `experts`, in transformers."""

Inputs = Iterable[tuple[int, Tensor]]
"""Pairs of a matrix's index in its stack and its inputs, [tokens, in]."""


@dataclass(frozen=True, eq=False)
class MatrixStack:
    """Matrices of one parameter: a linear layer's one, or one for each expert of a mixture.

    Iterating gives them one by one, [out, in], float32.
    """

    module: nn.Module
    name: str
    transposed: bool
    inputs: Callable[..., Inputs]
    """Function from the arguments of a call of the module to the matrices' inputs."""

    def __iter__(self) -> Iterator[Tensor]:
        for matrix in self._stack(self.module.get_parameter(self.name)):
            yield matrix.float().contiguous()

    @property
    def shape(self) -> torch.Size:
        """Shape [matrices, out, in]."""
        return self._stack(self.module.get_parameter(self.name)).shape

    def replace(self, matrices: Iterable[Tensor]) -> None:
        """Give the module a new parameter: other models may share the old one."""
        own = torch.empty_like(self.module.get_parameter(self.name))
        for target, matrix in zip(self._stack(own), matrices, strict=True):
            target.copy_(matrix)
        setattr(self.module, self.name, nn.Parameter(own, requires_grad=False))

    def watch(self, see: Callable[[int, Tensor], None]) -> RemovableHandle:
        """Call `see` with the index and inputs of a matrix at each call, until removed."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            for index, x in self.inputs(*arguments.values()):
                see(index, x)

        return self.module.register_forward_pre_hook(hook, with_kwargs=True)

    def _stack(self, parameter: Tensor) -> Tensor:
        stack = parameter if parameter.dim() == 3 else parameter[None]
        return stack.mT if self.transposed else stack


def matrix_stacks(layer: nn.Module) -> list[MatrixStack]:
    """Matrices of a layer by parameter, without routers: pruned, those would choose others."""
    stacks: list[MatrixStack] = []
    modules = dict(layer.named_modules())
    experts = [path for path in modules if f".{path}".endswith(".experts")]
    mixtures = [path.removesuffix("experts") for path in experts]
    for path, module in modules.items():
        if isinstance(module, nn.Linear | Conv1D):
            inside = [
                path.removeprefix(mixture) for mixture in mixtures if path.startswith(mixture)
            ]
            if not any(ROUTERS.intersection(names.split(".")) for names in inside):
                # GPT-2's Conv1D is a linear layer transposed.
                transposed = isinstance(module, Conv1D)
                stacks.append(MatrixStack(module, "weight", transposed, _linear_inputs))
        elif is_experts(module):
            experts_inputs = _ExpertsInputs(module)
            up, transposed = experts_inputs.up_name, experts_inputs.transposed
            stacks.append(MatrixStack(module, up, transposed, experts_inputs.up))
            stacks.append(MatrixStack(module, "down_proj", transposed, experts_inputs.down))
    return stacks


def is_experts(module: nn.Module) -> bool:
    """Whether a module has all experts' weights in one parameter, of a layout that transformers
    describes."""
    return hasattr(module, "is_transposed") and hasattr(module, "has_gate")


def _linear_inputs(x: Tensor) -> Inputs:
    return [(0, x.reshape(-1, x.shape[-1]))]


class _ExpertsInputs:
    """Inputs of the two matrices of each expert of a mixture."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.transposed: bool = module.is_transposed
        self.up_name = "gate_up_proj" if module.has_gate else "up_proj"

    def up(self, hidden: Tensor, chosen: Tensor, *_weights: Any) -> Inputs:
        """Tokens routed to each expert; `hidden` is [tokens, in], `chosen` experts [tokens, k]."""
        for expert in range(len(self._module.down_proj)):
            x = hidden[(chosen == expert).any(dim=-1)]
            if len(x):
                yield expert, x

    def down(self, hidden: Tensor, chosen: Tensor, *_weights: Any) -> Inputs:
        """Activations between the two matrices of each expert."""
        module = self._module
        weights = getattr(module, self.up_name)
        biases = getattr(module, f"{self.up_name}_bias") if module.has_bias else None
        for expert, x in self.up(hidden, chosen):
            weight = weights[expert].T if self.transposed else weights[expert]
            product = linear(x, weight, None if biases is None else biases[expert])
            yield expert, (module._apply_gate if module.has_gate else module.act_fn)(product)
