"""Sparsification layer by layer, each on the inputs that the pruned layers before it give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...errors import OptionError
from ...model.anatomy import Anatomy
from ...model.gates import first_tensor
from ..recipes import Pattern, Sparsify
from .matrices import is_experts, matrix_stacks
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
    """Replace every matrix inside the decoder layers by a pruned one.

    Embeddings, head and norms stay, and so do the old weights themselves, which other models may
    share. An expert of a mixture is pruned by the tokens that are routed to it. `windows` are
    calibration tokens, int64 [positions] each; magnitude looks at none. Raises `UserError` for a
    matrix that no token reaches and, before anything is changed, for a model that would be only
    half pruned.
    """
    layers = [layer.module for layer in anatomy.layers]
    for layer in layers:
        _check(model, layer, part)
    if part.method == "magnitude":
        for number, layer in enumerate(layers):
            for stack in matrix_stacks(layer):
                stack.replace(magnitude(matrix, part.sparsity) for matrix in stack)
            progress((number + 1) / len(layers))
        return
    # Every layer reads every window three times: to record its calls, to see what its matrices
    # multiply, and once they are pruned.
    reads, total = 0, 3 * len(windows) * len(layers)

    def report(more: int) -> None:
        nonlocal reads
        reads += more
        progress(reads / total)

    calls, hidden = _record_calls(model, layers, windows, lambda: report(1))
    for number, layer in enumerate(layers):
        statistics = {
            stack: [_InputStatistics(part.method == "sparsegpt") for _ in stack]
            for stack in matrix_stacks(layer)
        }
        handles = [
            stack.watch(lambda index, x, inputs=inputs: inputs[index].add(x))
            for stack, inputs in statistics.items()
        ]
        try:
            for state, call in zip(hidden, calls, strict=True):
                layer(state, *call[number].args, **call[number].kwargs)
                report(1)
        finally:
            for handle in handles:
                handle.remove()
        for stack, inputs in statistics.items():
            unreached = [index for index, matrix in enumerate(inputs) if not matrix.tokens]
            if unreached:
                expert = f"expert {unreached[0]} of " if len(inputs) > 1 else ""
                raise OptionError(
                    f"{part} cannot be applied: the {len(windows)} calibration samples never "
                    f"reach {expert}{stack.name} in {type(stack.module).__name__} of layer "
                    f"{number}; take more, of a longer text (--calibration, "
                    "--calibration-samples)"
                )
            pairs = zip(inputs, stack, strict=True)
            stack.replace(of_matrix.prune(matrix, part) for of_matrix, matrix in pairs)
            # Nothing is read, but this takes long, and may be cancelled.
            report(0)
        statistics.clear()
        for index, (state, call) in enumerate(zip(hidden, calls, strict=True)):
            hidden[index] = first_tensor(layer(state, *call[number].args, **call[number].kwargs))
            report(1)


class _InputStatistics:
    """Second moments of a matrix's inputs over the calibration tokens."""

    def __init__(self, second_order: bool) -> None:
        self._second_order = second_order
        self.tokens = 0
        self._sum = torch.empty(0)
        """Σ X Xᵀ, [in, in], or only its diagonal Σ X², [in]."""

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
                raise OptionError(
                    f"{part} cannot be applied: what a matrix is multiplied by on the calibration "
                    "text overflows; use another text, or --dtype float32"
                ) from error
        return wanda(weight, self._sum, part.sparsity)


@dataclass(frozen=True)
class _Call:
    """Arguments of a layer's call, without its hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _record_calls(
    model: PreTrainedModel,
    layers: list[nn.Module],
    windows: list[Tensor],
    report: Callable[[], None],
) -> tuple[list[list[_Call]], list[Tensor]]:
    """All layers' calls and the first layer's hidden states, [1, positions, hidden], per window.

    `report` is called for each layer and window.
    Masks and position embeddings are the same objects in most layers, so this takes little memory.
    """
    calls: list[list[_Call]] = []
    hidden: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = args[0] if args else kwargs["hidden_states"]
        if module is layers[0]:
            hidden.append(state)
        rest = {key: value for key, value in kwargs.items() if key != "hidden_states"}
        calls[-1].append(_Call(args[1:], rest))
        report()

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
    """Raise `UserError` if a layer has weights that the part cannot prune."""
    family = model.config.model_type
    for module in layer.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 2 and not (isinstance(module, nn.Conv1d) or is_experts(module)):
                raise OptionError(
                    f"{part} cannot be applied to this {family} model: {name} of its layers, "
                    f"{tuple(parameter.shape)}, is no matrix and no experts' of a known layout, "
                    "and pruning the rest would half prune it"
                )
    if isinstance(part.sparsity, Pattern):
        for stack in matrix_stacks(layer):
            if stack.shape[-1] % part.sparsity.m:
                raise OptionError(
                    f"{part} cannot be applied to this {family} model: {part.sparsity.m} does not "
                    f"divide a matrix's {stack.shape[-1]} inputs"
                )
