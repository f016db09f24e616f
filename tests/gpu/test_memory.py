"""Memory of a GPU that runs out: the session, its trace and what it decodes next."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.errors import UserError
from prunetui.engine.trace.file import read_trace

from ..support.models import save_model_directory
from ..support.steps import decode_all
from .sessions import STEPS, open_tiny, without_cost

LONG = {"cuda": "To be, or not to be. " * 180, "cpu": "To be, or not to be."}
"""A prompt whose caches need some hundred megabytes, which no leftover of the allocator has."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with few weights and wide caches."""
    return save_model_directory(
        tmp_path_factory.mktemp("wide") / "model",
        hidden_size=64,
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=64,
        max_position_embeddings=8192,
    )


@contextmanager
def _full(device: str, ballast: list[torch.Tensor]) -> Iterator[None]:
    """Let no more memory be had of a device; `ballast` gets what fills the allocator's leftovers.

    On a CPU, which cannot be capped, reading fails as it would.
    """
    if device == "cpu":
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        with (
            patch.object(Lockstep, "prefill", side_effect=error),
            patch.object(Lockstep, "advance", side_effect=error),
        ):
            yield
        return
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    for size in (1 << exponent for exponent in range(28, 8, -1)):
        try:
            while True:
                ballast.append(torch.empty(size, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            continue
    try:
        yield
    finally:
        ballast.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("graphs", [True, False])
def test_a_prompt_too_long_keeps_the_session(folder, device: str, graphs: bool, tmp_path) -> None:
    path = tmp_path / "kept.trace.jsonl"
    with open_tiny(folder, device, graphs=graphs) as session:
        expected = without_cost(decode_all(session))
    with open_tiny(folder, device, path, graphs=graphs) as session:
        for _ in range(5):
            session.step()
        trace = session.trace
        with _full(device, []), pytest.raises(UserError, match="out of memory"):
            session.restart(prompt=LONG[device])
        assert session.trace is trace
        assert without_cost(trace.steps) == expected[:5]
        assert without_cost(decode_all(session)) == expected
        # With room again, what was refused is done.
        session.restart(prompt=LONG[device])
        session.step()
        assert len(session.trace.header.prompt.tokens) == len(LONG[device])
    assert without_cost(read_trace(path).steps) == expected


def test_a_step_without_memory_keeps_the_steps_before_it(folder, device: str, tmp_path) -> None:
    path = tmp_path / "kept.trace.jsonl"
    with open_tiny(folder, device, graphs=False) as session:
        expected = without_cost(decode_all(session))
    with open_tiny(folder, device, path, graphs=False) as session:
        for _ in range(5):
            session.step()
        with (
            _full(device, []),
            pytest.raises(UserError, match="out of memory at step 5; the steps before it stand"),
        ):
            session.step()
        assert without_cost(session.trace.steps) == expected[:5]
        assert without_cost(decode_all(session)) == expected
    assert without_cost(read_trace(path).steps) == expected
    assert len(expected) == STEPS
