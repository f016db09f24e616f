"""Static steps and their graphs on a CPU, so that what a GPU would run is tried without one."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import torch
from prunetui.engine.decode import static_steps
from prunetui.engine.decode.cuda_graph import Launch
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
    """Take a CPU for a GPU: torch's operations decode, in static steps that can be captured."""
    patch.setattr("prunetui.engine.cpu.backend._compiled_backend", lambda: None)
    patch.setattr(torch.cuda, "Event", ClockEvent)
    take_static_steps(patch)


def take_static_steps(patch: pytest.MonkeyPatch, capture: Any = None) -> None:
    """Have sessions on a CPU take static steps, captured by `capture` or `pretended_capture`."""
    patch.setattr(static_steps, "DEVICES", {"cpu"})
    patch.setattr(static_steps, "capture", capture or pretended_capture)
    patch.setattr(Reduced, "fetch", _fetch_at_once)


def _fetch_at_once(reduced: Reduced) -> Callable[[], ReducedArrays]:
    """Fetch before anything that follows, as a transfer on CUDA's stream does."""
    arrays = ReducedArrays(*(part.double().clone().numpy() for part in reduced.parts))
    return lambda: arrays


def pretended_capture(run: Callable[[], T], _device: torch.device) -> tuple[Launch, T]:
    """Stand in for `cuda_graph.capture`: a launch runs the same operations again, and puts what
    they give where the first run had it."""
    result = run()
    kept = [*_tensors(result)]

    def launch() -> Callable[[], float]:
        for before, after in zip(kept, _tensors(run()), strict=True):
            before.copy_(after)
        return lambda: 0.0

    return launch, result


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
