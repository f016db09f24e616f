"""Sessions of tiny models on a device, and stock models beside them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.records import Step
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..support.models import moved

STEPS = 12
VARIANTS = ("drop:attn=[1]", "drop:mlp=[0,2]")


@contextmanager
def open_tiny(
    folder: Path, device: str, record_to: Path | None = None, **options: Any
) -> Iterator[Session]:
    """A session in float32, closed afterwards."""
    settings: dict[str, Any] = {
        "model": str(folder),
        "variants": VARIANTS,
        "prompt": "Twelve bytes",
        "dtype": "float32",
        "device": device,
        "ignore_eos": True,
        "max_new_tokens": STEPS,
        "context": "free",
    }
    session = open_session(Options(**(settings | options)), record_to, lambda *_: None)
    try:
        yield session
    finally:
        session.close()


def stock_model(folder: Path, device: str) -> PreTrainedModel:
    """The model as transformers loads it."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    return moved(model.eval().requires_grad_(False), device)


def without_cost(steps: list[Step]) -> list[tuple[Any, ...]]:
    """All numbers of the steps but time and memory."""
    return [
        (s.step, s.lanes, s.candidates, s.drift, s.layers, s.local, s.local_layers, s.answers)
        for s in steps
    ]
