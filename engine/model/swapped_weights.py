"""Hooks that give some rows of a batch another model's weights, part by part."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UserError
from ..trace.blame import Part
from .anatomy import Layer
from .installed import InstalledHooks
from .probe import Recording, read_tokens
from .same_build import find_difference
from .weight_group import WeightGroup

OUTSIDE = Part(sublayer="outside")


class SwappedWeights(InstalledHooks):
    """Forward hooks that replace the outputs of modules, in some rows, by those of their
    counterparts in another model of the same family and depth.

    Each module runs with its own weights in all rows, and its counterpart in the rows that swap it.
    Install them before the gates.
    """

    def __init__(
        self, differing: "DifferingModules", swapped: Sequence[frozenset[Part]], *, back: bool
    ) -> None:
        """`swapped` are the parts of each row; with `back`, the model that runs is the second of
        `differing` and its counterpart the first."""
        super().__init__()
        self._hooks: dict[nn.Module, _Swap] = {}
        for part, pairs in differing.by_part.items():
            rows = torch.tensor([part in of_row for of_row in swapped])
            if rows.any():
                for pair in pairs:
                    module, counterpart = reversed(pair) if back else pair
                    self._hooks[module] = _Swap(counterpart, rows)

    def _register(self) -> Iterator[RemovableHandle]:
        for module, hook in self._hooks.items():
            yield module.register_forward_hook(hook, with_kwargs=True)


class _Swap:
    def __init__(self, counterpart: nn.Module, swapped: Tensor) -> None:
        self._counterpart = counterpart
        self._row_count = len(swapped)
        self._rows = swapped.nonzero()[:, 0]

    def __call__(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        inputs = [self._select(value) for value in args]
        named = {name: self._select(value) for name, value in kwargs.items()}
        return self._replace(output, self._counterpart(*inputs, **named))

    def _select(self, value: Any) -> Any:
        """The swapped rows of a tensor or of those in a tuple, and anything else as it is."""
        if isinstance(value, tuple):
            return tuple(map(self._select, value))
        if not isinstance(value, Tensor) or not value.ndim or len(value) % self._row_count:
            return value
        return self._by_row(value)[self._rows.to(value.device)].flatten(0, 1)

    def _replace(self, output: Any, other: Any) -> Any:
        """The output with the swapped rows from the counterpart's."""
        if isinstance(output, Tensor):
            by_row = self._by_row(output)
            rows = self._rows.to(output.device)
            swapped = other.to(output.device).reshape(len(rows), *by_row.shape[1:])
            return by_row.index_copy(0, rows, swapped.to(output.dtype)).view(output.shape)
        if not isinstance(output, tuple | list):
            return output
        make = getattr(output, "_make", type(output))
        return make(self._replace(*pair) for pair in zip(output, other, strict=True))

    def _by_row(self, value: Tensor) -> Tensor:
        """The tensor as [rows, …]: mixtures and OPT fold rows and positions into one dimension."""
        return value.reshape(self._row_count, len(value) // self._row_count, *value.shape[1:])


class DifferingModules:
    """Modules whose parameters differ in two models that are built alike, by part."""

    def __init__(self, first: WeightGroup, second: WeightGroup) -> None:
        self.by_part: dict[Part, list[tuple[nn.Module, nn.Module]]] = {}
        if first is second:
            return
        parts = _parts_of_modules(first)
        counterparts = dict(second.model.named_modules())
        for name, module in first.model.named_modules():
            own = dict(module.named_parameters(recurse=False))
            other = dict(counterparts[name].named_parameters(recurse=False))
            if any(own[key] is not other[key] for key in own):
                pairs = self.by_part.setdefault(parts.get(module, OUTSIDE), [])
                pairs.append((module, counterparts[name]))


def compare_modules(baseline: WeightGroup, other: WeightGroup, name: str) -> DifferingModules:
    """Modules of `other` whose parameters are not the baseline's, the baseline's first.

    Raises `UserError` where `other`, called `name`, has another depth or is built otherwise.
    """
    depth, own_depth = len(baseline.anatomy.layers), len(other.anatomy.layers)
    if own_depth != depth:
        raise UserError(
            f"{name} has {own_depth} layers and the baseline {depth}; parts can be given back "
            "only between models of the same depth"
        )
    if difference := find_difference(baseline.model, other.model):
        raise UserError(
            f"{name} is not built as the baseline is ({difference}), so no part of it can be given "
            "back"
        )
    return DifferingModules(baseline, other)


def _parts_of_modules(group: WeightGroup) -> dict[nn.Module, Part]:
    """The part that each module inside a layer belongs to."""
    parts: dict[nn.Module, Part] = {}
    inside = [part for layer in group.anatomy.layers for part in layer.module.modules()]
    with Recording(inside) as recording:
        read_tokens(group.model)
    order = [*recording.runs]
    for number, layer in enumerate(group.anatomy.layers):
        attention = Part(sublayer="attention", layer=number)
        mlp = Part(sublayer="mlp", layer=number)
        parts |= _parts_of_layer(layer, order, attention, mlp)
    return parts


def _parts_of_layer(
    layer: Layer, order: list[nn.Module], attention: Part, mlp: Part
) -> dict[nn.Module, Part]:
    """The sublayer of each module of a layer: what runs before the residual stream between the two
    is read belongs to the attention, with its norms; where the two run in parallel, what runs
    until the attention is done."""
    inside = {*layer.module.modules()}
    ran = [module for module in order if module in inside]
    begin = [*layer.middle.modules()] if layer.middle else []
    ends = [ran.index(module) for module in begin if module in ran]
    ends = ends or [1 + max(ran.index(module) for module in layer.attention)]
    before = {*ran[: min(ends)]}
    return {module: attention if module in before else mlp for module in inside}
