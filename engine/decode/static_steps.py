"""Steps of one position of all batches, at fixed addresses, replayed as one CUDA graph."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..model.context_length import context_length
from ..model.outputs import Outputs
from ..out_of_memory import out_of_memory
from .batch import Batch
from .cuda_graph import Launch, capture
from .fixed_cache import clear_position, room_of
from .kv_cache import supports_fixed_cache

log = logging.getLogger(__name__)


DEVICES = {"cuda"}
"""Types of devices on which launching a step's operations costs more than what a static step reads
in vain."""


def supports_static_steps(models: Sequence[PreTrainedModel]) -> bool:
    """Whether models are on one device that static steps are for, and keep nothing of a text that
    they cannot."""
    devices = {model.device for model in models}
    return (
        len(devices) == 1
        and {device.type for device in devices} <= DEVICES
        and all(map(supports_fixed_cache, models))
    )


class Reduction(Protocol):
    """What is made of a step's outputs in the same launch: numbers, and the tokens to choose."""

    def draw_noise(self, step: int, vocabulary: int) -> None:
        """Draw the noise that a step samples its tokens with, at a fixed address."""
        ...

    def __call__(self, outputs: Outputs) -> Any:
        """Reduce outputs on their device, without a look at them on the host."""
        ...


class StaticSteps:
    """One position after another, whose tokens and position are tensors at fixed addresses.

    A CUDA graph holds the step of every batch and the reduction; it is captured at the first step,
    and again for another reduction. Without graphs the same operations are launched one by one.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        join: Callable[[Sequence[Outputs]], Outputs],
        position: Tensor,
        vocabulary: int,
        *,
        graphs: bool,
    ) -> None:
        """`join` makes one of the batches' outputs; `position` is int64 [1], that of the caches;
        `vocabulary` is the number of logits of a row."""
        self._batches = batches
        self._join = join
        self._position = position
        self._vocabulary = vocabulary
        self._graphs = graphs
        self._reduction: Reduction | None = None
        rows = sum(len(batch.lanes) for batch in batches)
        self._tokens = torch.zeros(rows, 1, dtype=torch.int64, device=position.device)
        self._steps = [batch.static_step() for batch in batches]
        self._launch: Launch | None = None
        self._outputs: Outputs | None = None
        self.refusal: str | None = None
        """Why the steps cannot be captured, once that is known."""

    def advance(
        self, tokens: Tensor, length: int, reduction: Reduction | None, step: int
    ) -> Outputs:
        """Read int64 [lanes, 1] after `length` positions, and reduce the outputs, for a reduction's
        step number `step`."""
        if reduction is not None:
            if reduction is not self._reduction:
                self._reduction, self._launch, self._outputs = reduction, None, None
            reduction.draw_noise(step, self._vocabulary)
        if self._graphs and self._launch is None and self.refusal is None:
            self._capture()
        # CUDA does not recover from a position that is not there.
        assert length < room_of(self._batches[0].cache)
        self._tokens.copy_(tokens)
        self._position.fill_(length)
        if self._launch is None or self._outputs is None:
            outputs = self._run()
        else:
            outputs = dataclasses.replace(self._outputs, device_seconds=self._launch())
        return dataclasses.replace(outputs, reduced=None) if reduction is None else outputs

    def _run(self) -> Outputs:
        tokens = (
            [self._tokens]
            if len(self._batches) == 1
            else [self._tokens.index_select(0, batch.lanes) for batch in self._batches]
        )
        outputs = self._join([step(rows) for step, rows in zip(self._steps, tokens, strict=True)])
        if self._reduction is None:
            return outputs
        return dataclasses.replace(outputs, reduced=self._reduction(outputs))

    def _capture(self) -> None:
        """Capture the step, tried out at the last position, which no text reaches: what a model
        keeps of the position in a number of the host is wrong in all others, and so found.

        It is one that the models take: of some it is an index, and CUDA recovers from no wrong one.
        """
        cache = self._batches[0].cache
        limits = [context_length(batch.group.model) for batch in self._batches]
        last = min([room_of(cache), *(limit for limit in limits if limit is not None)]) - 1
        scratch = max(last, cache.get_seq_length())
        self._position.fill_(scratch)
        try:
            self._launch, self._outputs = capture(self._run, self._position.device)
        except Exception as error:
            if out_of_memory(error):
                raise
            self.refusal = str(error).strip().partition("\n")[0] or type(error).__name__
            log.warning("a step cannot be captured as a CUDA graph", exc_info=True)
        finally:
            for batch in self._batches:
                clear_position(batch.cache, scratch)
