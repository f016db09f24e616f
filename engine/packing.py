"""Linear layers on a CPU, their weights packed for oneDNN.

At a handful of rows, stock linear layers reach a fraction of the memory's bandwidth on most
processors. Packed once into the blocks that oneDNN multiplies by, the weights are read at close to
all of it.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .timing import plainly_faster

Unit = tuple[nn.Linear, ...]
"""Layers that read the same input: their weights, one below the other, are packed as one."""

SAMPLE = 256 << 20
"""Bytes of weights that are multiplied to see whether packing pays: more than caches hold."""


class Products(Enum):
    """How linear layers are multiplied."""

    PLAIN = "as torch does"
    PACKED = "packed"
    DOUBLED = "packed, two rows as four: some processors take longer for two"


def fastest_products(models: Mapping[PreTrainedModel, int]) -> Products:
    """By the time that a sample of the layers takes in the rows that each model has.

    At one or two rows of float32 plain ones are, where torch's own library is made for the
    processor.
    """
    if not _available():
        return Products.PLAIN
    plain, packed, doubled = [], [], []
    for model, rows in models.items():
        left = SAMPLE
        for unit in _units(model):
            size = sum(module.weight.nbytes for module in unit)
            if size > left:
                break
            left -= size
            x = torch.ones(rows, 1, _inputs(unit[0]), dtype=unit[0].weight.dtype)
            weight = _pack(unit, rows)
            plain += [partial(module.forward, x) for module in unit]
            for calls, doubles in ((packed, False), (doubled, True)):
                calls.append(partial(_Together(unit, weight, doubles).product, x))
    fastest = Products.PACKED
    if 2 in models.values() and plainly_faster(doubled, packed):
        fastest, packed = Products.DOUBLED, doubled
    return Products.PLAIN if plainly_faster(plain, packed) else fastest


class PackedLinears:
    """Packs the linear layers of models that may share weights; `remove` unpacks, bit for bit.

    A packed weight takes the place of the plain one, but for one that an embedding reads too.
    Without the operators, or in a dtype that they do not take, all stays as it is.
    """

    def __init__(
        self, models: Mapping[PreTrainedModel, int], products: Products = Products.PACKED
    ) -> None:
        """`models` and the rows that each multiplies at a step."""
        self._packed: list[tuple[Unit, Tensor]] = []
        self._emptied: set[nn.Linear] = set()
        if products is Products.PLAIN or not _available():
            return
        read_elsewhere = {
            parameter.data_ptr()
            for model in models
            for module in model.modules()
            if not _is_linear(module)
            for parameter in module.parameters(recurse=False)
        }
        units = _unmixed({unit: rows for model, rows in models.items() for unit in _units(model)})
        by_weights: dict[tuple[int, ...], Tensor] = {}
        for unit, rows in units.items():
            key = _places(unit)
            if key not in by_weights:
                by_weights[key] = _pack(unit, rows)
            self._packed.append((unit, by_weights[key]))
        for unit, packed in self._packed:
            together = _Together(unit, packed, products is Products.DOUBLED)
            for part, module in enumerate(unit):
                alone = not unit[1:]
                forward = together.product if alone else partial(together.part, part)
                vars(module)["forward"] = forward
        self._emptied = {
            module
            for unit in units
            for module in unit
            if module.weight.data_ptr() not in read_elsewhere
        }
        for module in self._emptied:
            module.weight.data = module.weight.new_empty(0)
        _leave_the_file(models)

    def remove(self) -> None:
        for unit, packed in self._packed:
            for module in unit:
                del vars(module)["forward"]
            # Of models that share a weight, the first has unpacked it for all.
            if any(module in self._emptied and not module.weight.numel() for module in unit):
                weights = packed.to_dense().split([_outputs(module) for module in unit])
                for module, weight in zip(unit, weights, strict=True):
                    plain = weight.T if isinstance(module, Conv1D) else weight
                    module.weight.data = plain.clone(memory_format=torch.contiguous_format)
        self._packed, self._emptied = [], set()


class _Together:
    """A unit's layers, multiplied at once when the first of them is called."""

    def __init__(self, unit: Unit, packed: Tensor, doubles: bool) -> None:
        self._doubles = doubles
        self._multiply = torch.ops.mkldnn._linear_pointwise.default
        self._packed = packed
        self._sizes = [_outputs(module) for module in unit]
        biases = (
            [
                torch.zeros(size, dtype=packed.dtype) if module.bias is None else module.bias
                for module, size in zip(unit, self._sizes, strict=True)
            ]
            if any(module.bias is not None for module in unit)
            else []
        )
        self._bias = torch.cat(biases) if biases else None
        self._input: Tensor | None = None
        self._parts: tuple[Tensor, ...] = ()

    def part(self, number: int, x: Tensor) -> Tensor:
        if x is not self._input:
            self._input = x
            self._parts = torch.split_with_sizes(self.product(x), self._sizes, dim=-1)
        output = self._parts[number]
        if number == len(self._sizes) - 1:
            self._input, self._parts = None, ()  # so that a prompt's activations are let go
        return output

    def product(self, x: Tensor) -> Tensor:
        if self._doubles and x.shape[0] == 2 and x.numel() == 2 * x.shape[-1]:
            return self._multiply(torch.cat((x, x)), self._packed, self._bias, "none", [], "")[:2]
        return self._multiply(x, self._packed, self._bias, "none", [], "")


def _units(model: PreTrainedModel) -> list[Unit]:
    """All linear layers that can be packed; those that read the same input one after the other,
    as a pass over two tokens shows, are a unit."""
    linears = [
        module
        for module in model.modules()
        if _is_linear(module)
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.bfloat16)
    ]
    if not linears:
        return []
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
        assert _is_linear(module)
        calls.append((module, args[0], args[0].clone()))

    handles = [module.register_forward_pre_hook(watch) for module in linears]
    try:
        with torch.inference_mode():
            model(input_ids=torch.tensor([[1, 2]], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    units: list[list[nn.Linear]] = []
    for before, (module, x, content) in zip((None, *calls), calls, strict=False):
        # The same tensor may hold something else by now.
        if before and x is before[1] and torch.equal(content, before[2]):
            units[-1].append(module)
        else:
            units.append([module])
    times = Counter(module for unit in units for module in unit)
    kept = [tuple(unit) for unit in units if all(times[module] == 1 for module in unit)]
    return kept + [(module,) for module in linears if module not in {*itertools.chain(*kept)}]


def _pack(unit: Unit, rows: int) -> Tensor:
    weight = torch.cat([_plain(module) for module in unit]) if unit[1:] else _plain(*unit)
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def _unmixed(units: dict[Unit, int]) -> dict[Unit, int]:
    """Units apart again of which another model shares some of the weights but not all: packed as
    one, those would be held twice."""
    packed_as: dict[int, set[tuple[int, ...]]] = {}
    for unit in units:
        for place in _places(unit):
            packed_as.setdefault(place, set()).add(_places(unit))
    apart: dict[Unit, int] = {}
    for unit, rows in units.items():
        mixed = any(len(packed_as[place]) > 1 for place in _places(unit))
        apart |= {(module,): rows for module in unit} if mixed else {unit: rows}
    return apart


def _places(unit: Unit) -> tuple[int, ...]:
    return tuple(module.weight.data_ptr() for module in unit)


def _leave_the_file(models: Iterable[PreTrainedModel]) -> None:
    """Copy what is left: one tensor that is still in the file keeps all of it in memory."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    for tensor in {t for model in models for t in (*model.parameters(), *model.buffers())}:
        if tensor.device.type == "cpu" and tensor.numel():
            key = tensor.data_ptr(), tensor.shape
            if key not in copies:
                copies[key] = tensor.data.clone()
            tensor.data = copies[key]


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """A subclass may compute something else; GPT-2's Conv1D is a linear layer transposed."""
    return type(module) in (nn.Linear, Conv1D)


def _plain(module: nn.Linear) -> Tensor:
    """The weight, [out, in]."""
    weight = module.weight.data
    return weight.T.contiguous() if isinstance(module, Conv1D) else weight


def _inputs(module: nn.Linear) -> int:
    return module.nx if isinstance(module, Conv1D) else module.in_features


def _outputs(module: nn.Linear) -> int:
    """How many; the weight may be gone."""
    return module.nf if isinstance(module, Conv1D) else module.out_features
