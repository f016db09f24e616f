"""Sparsifying a model layer by layer, each with the inputs that the pruned ones before it give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...errors import UserError
from ...model.anatomy import Anatomy
from ...model.gates import first_tensor
from ..recipes import Pattern, Sparsify
from .matrices import is_experts, matrices
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
    """Give every matrix inside the decoder layers a new, pruned weight.

    Embeddings, head and norms stay, and so do the old weights themselves, which other models may
    share. An expert of a mixture is pruned by the tokens that are routed to it. `windows` are
    calibration tokens, int64 [positions] each; magnitude looks at none. Raises `UserError` for
    tokens that never reach a matrix and, before anything is changed, for a model that it would
    half prune.
    """
    layers = [layer.module for layer in anatomy.layers]
    for layer in layers:
        _check(model, layer, part)
    if part.method == "magnitude":
        for number, layer in enumerate(layers):
            for held in matrices(layer):
                held.replace(magnitude(matrix, part.sparsity) for matrix in held)
            progress((number + 1) / len(layers))
        return
    calls, hidden = _record_calls(model, layers, windows)
    for number, layer in enumerate(layers):
        statistics = {
            held: [_Statistics(part.method == "sparsegpt") for _ in held]
            for held in matrices(layer)
        }
        handles = [
            held.watch(lambda which, x, seen=seen: seen[which].add(x))
            for held, seen in statistics.items()
        ]
        try:
            for state, call in zip(hidden, calls, strict=True):
                layer(state, *call[number].args, **call[number].kwargs)
        finally:
            for handle in handles:
                handle.remove()
        for held, seen in statistics.items():
            for which, of in enumerate(seen):
                if not of.tokens:
                    expert = f"expert {which} of " if len(seen) > 1 else ""
                    raise UserError(
                        f"{part} cannot be applied: the {len(windows)} calibration samples never "
                        f"reach {expert}{held.name} in {type(held.module).__name__} of layer "
                        f"{number}; take more, of a longer text (--calibration, "
                        "--calibration-samples)"
                    )
            held.replace(of.prune(matrix, part) for of, matrix in zip(seen, held, strict=True))
        statistics.clear()
        hidden = [
            first_tensor(layer(state, *call[number].args, **call[number].kwargs))
            for state, call in zip(hidden, calls, strict=True)
        ]
        progress((number + 1) / len(layers))


class _Statistics:
    """Of one matrix's inputs over the calibration tokens."""

    def __init__(self, second_order: bool) -> None:
        self._second_order = second_order
        self.tokens = 0
        self._sum = torch.empty(0)
        """Σ X Xᵀ, [in, in], or just its diagonal Σ X², [in]."""

    def add(self, x: Tensor) -> None:
        x = x.float()
        update = x.T @ x if self._second_order else x.square().sum(dim=0)
        self._sum = self._sum + update if self.tokens else update
        self.tokens += len(x)

    def prune(self, weight: Tensor, part: Sparsify) -> Tensor:
        if self._second_order:
            try:
                return sparsegpt(weight, self._sum * (2 / self.tokens), part.sparsity)
            except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
                raise UserError(
                    f"{part} cannot be applied: what a matrix is multiplied by on the calibration "
                    "text overflows; use another text, or --dtype float32"
                ) from error
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
            if parameter.dim() > 2 and not (isinstance(module, nn.Conv1d) or is_experts(module)):
                raise UserError(
                    f"{part} cannot be applied to this {family} model: {name} of its layers, "
                    f"{tuple(parameter.shape)}, is no matrix and no experts' of a known layout, "
                    "and pruning the rest would half prune it"
                )
    if isinstance(part.sparsity, Pattern):
        for held in matrices(layer):
            if held.shape[-1] % part.sparsity.m:
                raise UserError(
                    f"{part} cannot be applied to this {family} model: {part.sparsity.m} does not "
                    f"divide a matrix's {held.shape[-1]} inputs"
                )
