"""Sparsifying a model layer by layer, each with the inputs that the pruned ones before it give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..anatomy import Anatomy
from ..errors import UserError
from ..gates import first_tensor
from ..recipes import Pattern, Sparsify
from .sparsify import magnitude, sparsegpt, wanda

Progress = Callable[[float], None]


@torch.no_grad()
def sparsify_model(
    model: PreTrainedModel,
    anatomy: Anatomy,
    part: Sparsify,
    windows: list[Tensor],
    progress: Progress,
) -> None:
    """Give every linear layer inside the decoder layers a new, pruned weight.

    Embeddings, head and norms stay, and so do the old weights themselves, which other models may
    share. `windows` are calibration tokens, int64 [positions] each; magnitude looks at none.
    Raises `UserError`, before anything is changed, for a model that it would half prune.
    """
    layers = [layer.module for layer in anatomy.layers]
    for layer in layers:
        _check(model, layer, part)
    if part.method == "magnitude":
        for number, layer in enumerate(layers):
            for linear in linears(layer):
                _set(linear, magnitude(matrix(linear), part.sparsity))
            progress((number + 1) / len(layers))
        return
    calls, hidden = _record_calls(model, layers, windows)
    for number, layer in enumerate(layers):
        statistics = {linear: _Statistics(part.method == "sparsegpt") for linear in linears(layer)}
        handles = [
            linear.register_forward_pre_hook(seen.watch) for linear, seen in statistics.items()
        ]
        try:
            for state, call in zip(hidden, calls, strict=True):
                layer(state, *call[number].args, **call[number].kwargs)
        finally:
            for handle in handles:
                handle.remove()
        for linear, seen in statistics.items():
            _set(linear, seen.prune(matrix(linear), part))
        statistics.clear()
        hidden = [
            first_tensor(layer(state, *call[number].args, **call[number].kwargs))
            for state, call in zip(hidden, calls, strict=True)
        ]
        progress((number + 1) / len(layers))


def linears(layer: nn.Module) -> list[nn.Linear]:
    """The matrices that weight pruning prunes; GPT-2's Conv1D is a linear layer transposed."""
    return [module for module in layer.modules() if isinstance(module, nn.Linear | Conv1D)]  # type: ignore[misc]


class _Statistics:
    """Of one linear layer's inputs over the calibration tokens."""

    def __init__(self, second_order: bool) -> None:
        self._second_order = second_order
        self._tokens = 0
        self._sum: Tensor | None = None
        """Σ X Xᵀ, [in, in], or just its diagonal Σ X², [in]."""

    def watch(self, _module: nn.Module, args: tuple[Tensor]) -> None:
        x = args[0].reshape(-1, args[0].shape[-1]).float()
        self._tokens += len(x)
        update = x.T @ x if self._second_order else x.square().sum(dim=0)
        self._sum = update if self._sum is None else self._sum + update

    def prune(self, weight: Tensor, part: Sparsify) -> Tensor:
        if self._sum is None:
            raise UserError(
                f"{part} cannot be applied: the calibration text reaches a matrix of this model "
                "never; use a longer one"
            )
        if self._second_order:
            return sparsegpt(weight, self._sum * (2 / self._tokens), part.sparsity)
        return wanda(weight, self._sum, part.sparsity)


@dataclass(frozen=True)
class _Call:
    """How a layer was called, but for its hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _record_calls(
    model: PreTrainedModel, layers: list[nn.Module], windows: list[Tensor]
) -> tuple[list[list[_Call]], list[Tensor]]:
    """Per window, every layer's call and the first layer's hidden states, [1, positions, hidden].

    Masks and position embeddings are the same objects in most layers, so this holds few of them.
    """
    calls: list[list[_Call]] = []
    hidden: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = args[0] if args else kwargs["hidden_states"]
        if module is layers[0]:
            hidden.append(state)
        rest = {key: value for key, value in kwargs.items() if key != "hidden_states"}
        calls[-1].append(_Call(args[1:], rest))

    handles = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    try:
        for window in windows:
            calls.append([])
            model(input_ids=window[None].to(model.device), use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return calls, hidden


def _check(model: PreTrainedModel, layer: nn.Module, part: Sparsify) -> None:
    family = model.config.model_type
    for module in layer.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 2 and not isinstance(module, nn.Conv1d):
                raise UserError(
                    f"{part} cannot be applied to this {family} model: its experts are fused "
                    f"({name}, {tuple(parameter.shape)}), and pruning the rest would half prune it"
                )
    if isinstance(part.sparsity, Pattern):
        for linear in linears(layer):
            inputs = matrix(linear).shape[1]
            if inputs % part.sparsity.m:
                raise UserError(
                    f"{part} cannot be applied to this {family} model: {part.sparsity.m} does not "
                    f"divide a matrix's {inputs} inputs"
                )


def matrix(linear: nn.Linear) -> Tensor:
    """A linear layer's weight, [out, in], float32."""
    weight = linear.weight.data.float()
    return weight.T.contiguous() if isinstance(linear, Conv1D) else weight


def _set(linear: nn.Linear, weight: Tensor) -> None:
    plain = weight.T.contiguous() if isinstance(linear, Conv1D) else weight
    linear.weight = nn.Parameter(plain.to(linear.weight.dtype), requires_grad=False)
