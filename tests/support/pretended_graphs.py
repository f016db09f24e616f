"""Static steps and their graphs on a CPU, so that what a GPU would run is tried without one."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
import torch
from prunetui.engine.decode import static_steps
from prunetui.engine.measure.step_reduction import Reduced, ReducedArrays
from torch import Tensor

T = TypeVar("T")


class ClockEvent:
    """Stand-in for an event of CUDA: the time of the host."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing
        self.time = 0.0

    def record(self) -> None:
        self.time = time.perf_counter()

    def elapsed_time(self, other: "ClockEvent") -> float:
        """Milliseconds from this event to the other."""
        return (other.time - self.time) * 1e3


def pretend_graphs(patch: pytest.MonkeyPatch) -> None:
    """Take a CPU for a GPU: torch's operations decode, in static steps that can be captured.

    A graph runs the same operations again, and puts what they give where the first run had it.
    """
    patch.setattr("prunetui.engine.cpu.backend._compiled_backend", lambda: None)
    patch.setattr(static_steps, "DEVICES", {"cpu"})
    patch.setattr(static_steps, "capture", _capture)
    patch.setattr(torch.cuda, "Event", ClockEvent)
    fetch = Reduced.fetch

    def fetch_at_once(reduced: Reduced) -> Callable[[], ReducedArrays]:
        """Fetch before anything that follows, as a transfer on CUDA's stream does."""
        arrays = ReducedArrays(*(array.copy() for array in fetch(reduced)()))
        return lambda: arrays

    patch.setattr(Reduced, "fetch", fetch_at_once)


def _capture(run: Callable[[], T], _device: torch.device) -> tuple[Callable[[], None], T]:
    result = run()
    kept = [*_tensors(result)]

    def replay() -> None:
        for before, after in zip(kept, _tensors(run()), strict=True):
            before.copy_(after)

    return replay, result


def _tensors(value: object) -> Iterator[Tensor]:
    """Tensors in the fields of records and in lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
