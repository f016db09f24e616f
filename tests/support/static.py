"""Static steps on the CPU, and a pretended CUDA graph of them."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from prunetui.engine.decode import static_steps
from prunetui.engine.measure.step_reduction import Reduced, ReducedArrays
from torch import Tensor


def take_static_steps(monkeypatch: pytest.MonkeyPatch, capture: Any = None) -> None:
    """Have sessions on the CPU take static steps, captured by `capture`, which pretends to."""
    monkeypatch.setattr(static_steps, "DEVICES", {"cpu"})
    monkeypatch.setattr(static_steps, "capture", capture or pretended_capture)
    monkeypatch.setattr(Reduced, "fetch", _fetch)


def _fetch(reduced: Reduced) -> Callable[[], ReducedArrays]:
    """Stand in for a transfer that is queued before the next launch."""
    arrays = ReducedArrays(*(part.double().clone().numpy() for part in reduced.parts))
    return lambda: arrays


def pretended_capture(
    run: Callable[[], Any], _device: torch.device
) -> tuple[Callable[[], Callable[[], float]], Any]:
    """Stand in for `cuda_graph.capture`: a launch writes into the tensors of the capture."""
    run()
    result = run()

    def launch() -> Callable[[], float]:
        for old, new in zip(_tensors(result), _tensors(run()), strict=True):
            old.copy_(new)
        return lambda: 0.0

    return launch, result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _tensors(getattr(value, part.name))
