"""The compiled CPU path, as the rest of the engine uses it."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..model.attention import GroupedAttention
from .attention import ATTENTIONS, faster_attention
from .kernels.linear import MAX_ROWS
from .kernels.packing import PackedWeight
from .linears import FastLinear, FastLinears, stored_weight
from .llama_step import CompiledLlamaStep, supports_compiled_step
from .reduction import reduce
from .runtime.instruction import is_readable

PROBE_COLUMNS = 4096
"""Columns of the weight that measures the reading bandwidth."""


class CpuBackend:
    """Compiled operations on CPU tensors in float32 and bfloat16."""

    max_rows = MAX_ROWS
    """The most rows that a compiled step decodes."""

    def prepare(self, rows: Mapping[PreTrainedModel, int]) -> "PreparedModels":
        """Choose the fastest operations for models that decode so many rows."""
        return PreparedModels(rows)

    def step(self, model: Any, closed: Mapping[nn.Module, Tensor]) -> CompiledLlamaStep | None:
        """A step for a model of Llama's kind; None where the kernels cannot read its weights.

        `closed` maps attentions and MLPs to bool [rows], true where a gate is closed.
        """
        rows = len(next(iter(closed.values())))
        return CompiledLlamaStep(model, closed) if supports_compiled_step(model, rows) else None

    def reduce(
        self, z: Tensor, h: Tensor, streams: Tensor, k: int, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
        """The fields of `measure.reductions.Reductions` in their order; None where the kernels
        cannot read a tensor."""
        readable_together = z.dtype == h.dtype == streams.dtype
        if readable_together and is_readable(z) and is_readable(h) and is_readable(streams):
            return reduce(z, h, streams, k, temperature)
        return None

    def read_probe(self, block: Tensor) -> Callable[[], float]:
        """A function that reads a large tensor once, by a product with one row."""
        product = FastLinear(block.view(-1, PROBE_COLUMNS))
        x = block[:PROBE_COLUMNS].view(1, PROBE_COLUMNS)
        return lambda: product(x).sum().item()

    def stored_weight(self, module: nn.Module) -> Tensor | PackedWeight:
        """A module's weight as a step reads it: the same object for modules that share it."""
        return stored_weight(module)


class PreparedModels:
    """Models with fast linear layers and fast attention, between `install` and `remove`."""

    def __init__(self, rows: Mapping[PreTrainedModel, int]) -> None:
        self._attention = GroupedAttention(rows, ATTENTIONS[faster_attention(rows)])
        self._linears = FastLinears(rows)

    def install(self) -> None:
        """Replace the stock operations; after an error, all of them are stock again."""
        self._attention.install()
        try:
            self._linears.install()
        except BaseException:
            self._attention.remove()
            raise

    def remove(self) -> None:
        """Put the stock operations back. After an error, out of memory say, it can be called again,
        or `install`."""
        self._attention.remove()
        self._linears.remove()
