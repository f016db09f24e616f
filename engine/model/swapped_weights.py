"""Hooks that give some rows of a batch another model's weights, part by part."""

from collections.abc import Iterator, Mapping
from typing import Any

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
        self, differing: "DifferingModules", swapped: Mapping[Part, Tensor], *, back: bool
    ) -> None:
        """`swapped` is bool [rows] for each part; with `back`, the model that runs is the second of
        `differing` and its counterpart the first."""
        super().__init__()
        self._hooks: dict[nn.Module, _Swap] = {}
        for part, rows in swapped.items():
            if rows.any():
                for pair in differing.by_part[part]:
                    module, counterpart = reversed(pair) if back else pair
                    self._hooks[module] = _Swap(counterpart, rows)

    def _register(self) -> Iterator[RemovableHandle]:
        for module, hook in self._hooks.items():
            yield module.register_forward_hook(hook, with_kwargs=True)


class _Swap:
    def __init__(self, counterpart: nn.Module, swapped: Tensor) -> None:
        self._counterpart = counterpart
        self._row_count = len(swapped)
        self._whole = bool(swapped.all())
        self._rows = swapped.nonzero()[:, 0]

    def __call__(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if self._whole:
            return self._counterpart(*args, **kwargs)
        first = args[0] if args else kwargs["hidden_states"]
        inputs = [self._select(value, len(first)) for value in args]
        named = {name: self._select(value, len(first)) for name, value in kwargs.items()}
        return self._replace(output, self._counterpart(*inputs, **named))

    def _select(self, value: Any, length: int) -> Any:
        """The swapped rows of a tensor or of those in a tuple; what is the same for all rows, as it
        is. `length` is that of tensors in which rows come first."""
        if isinstance(value, tuple):
            return tuple(self._select(each, length) for each in value)
        if not isinstance(value, Tensor) or value.ndim < 2 or len(value) != length:
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
        """Raises `ValueError`, with the reason, where weights belong to no one part."""
        self.by_part: dict[Part, list[tuple[nn.Module, nn.Module]]] = {}
        if first is second:
            return
        modules, counterparts = (dict(each.model.named_modules()) for each in (first, second))
        with Recording(modules.values()) as recording:
            read_tokens(first.model)
        parts = _parts_of_modules(first, recording)
        # Names of modules that give other outputs: of one whose weights another reads without
        # calling it, as of a convolution with a state, that other one.
        names: dict[str, None] = {}
        for name, module in modules.items():
            own, other = (
                dict(each.named_parameters(recurse=False)) for each in (module, counterparts[name])
            )
            if any(own[key] is not other[key] for key in own):
                while modules[name] not in recording.runs:
                    name = name.rpartition(".")[0]
                names[name] = None
        for name in names:
            module = modules[name]
            part = parts.get(module, OUTSIDE)
            if any(parts.get(each, OUTSIDE) != part for each in module.modules()):
                raise ValueError(f"{name or 'the model'} has weights beside those of its sublayers")
            self.by_part.setdefault(part, []).append((module, counterparts[name]))


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
        raise UserError(not_alike(name, difference))
    try:
        return DifferingModules(baseline, other)
    except ValueError as error:
        raise UserError(not_alike(name, str(error))) from error


def not_alike(name: str, why: str) -> str:
    """Sentence for a variant of which no part can be as in the baseline."""
    return f"{name} is not built as the baseline is ({why}), so no part of it can be given back"


def _parts_of_modules(group: WeightGroup, recording: Recording) -> dict[nn.Module, Part]:
    """The part that each module inside a layer belongs to."""
    parts: dict[nn.Module, Part] = {}
    inside = [part for layer in group.anatomy.layers for part in layer.module.modules()]
    if len({*inside}) != len(inside):
        raise ValueError("its layers share modules")
    for number, layer in enumerate(group.anatomy.layers):
        attention = Part(sublayer="attention", layer=number)
        mlp = Part(sublayer="mlp", layer=number)
        before = _attention_modules(layer, recording)
        parts |= dict.fromkeys(layer.module.modules(), mlp)
        # Of modules inside them, some are not called.
        parts |= {module: attention for outer in before for module in outer.modules()}
    return parts


def _attention_modules(layer: Layer, recording: Recording) -> set[nn.Module]:
    """Modules of a layer that belong to its attention, norms included: what runs before the
    residual stream between attention and MLP is read.

    Where the two run in parallel, those that run until the attention is done, but for a norm whose
    output the MLP reads and the attention does not.
    """
    inside = {*layer.module.modules()}
    ran = [module for module in recording.runs if module in inside]
    if layer.middle is not None:
        begin = min(ran.index(module) for module in layer.middle.modules() if module in ran)
        return {*ran[:begin]}
    if not (layer.parallel and layer.mlp):
        raise ValueError("where a layer's MLP begins is not known")
    attention = layer.attention[0]
    before = ran[: 1 + ran.index(attention)]
    reads, feeds = (
        {module for module in before if _passes(recording, module, reader)}
        for reader in (attention, layer.mlp[0])
    )
    return {*before}.difference(feeds - reads)


def _passes(recording: Recording, module: nn.Module, reader: nn.Module) -> bool:
    """Whether a module's output is another's input: the same memory, as norms can be equal."""
    output, read = recording.outputs.get(module), recording.inputs.get(reader)
    return output is not None and read is not None and output.data_ptr() == read.data_ptr()
