"""Logits of stock transformers for a few tokens, which the proof compares with the lockstep's.

They are taken as a model is loaded, before anything is tied or installed.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from ..out_of_memory import out_of_memory

PROMPT, STEPS = 5, 2
"""Numbers of tokens that are read and that `generate` decodes: few, as each costs a pass."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """Tokens and their logits by stock transformers."""

    tokens: Tensor
    """int64 [PROMPT + STEPS - 1], on the CPU: the prompt, then greedily decoded tokens."""
    full: Tensor
    """float32 [PROMPT + STEPS - 1, vocabulary], on the CPU: logits of one pass without a cache."""
    generated: Tensor
    """float32 [STEPS, vocabulary], on the CPU: logits of `generate`, or those of `full` if the
    family's `generate` fails."""


@torch.inference_mode()
def take_reference(model: PreTrainedModel, prompt: list[int]) -> Reference:
    """Run a model as it was loaded. Raises the errors of its forward pass."""
    tokens = torch.tensor([prompt], device=model.device)
    generated = None
    try:
        with _plain_generation(model):
            generate: Any = model.generate
            output = generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                generation_config=GenerationConfig(
                    do_sample=False,
                    max_new_tokens=STEPS,
                    pad_token_id=0,
                    output_logits=True,
                    return_dict_in_generate=True,
                ),
            )
        tokens = output.sequences[:, : len(prompt) + STEPS - 1]
        generated = torch.cat(output.logits).float().cpu()
    # `generate` is a family's own code, of which only the forward pass is needed.
    except Exception as error:
        if out_of_memory(error):
            raise
        log.exception("generate of %s", model.config.model_type)
    # Outside of the handler: the error would keep what `generate` has allocated.
    if generated is None:
        for _ in range(STEPS - 1):
            tokens = torch.cat([tokens, _logits(model, tokens)[-1:].argmax(-1)[None]], dim=1)
    full = _logits(model, tokens).float().cpu()
    return Reference(tokens[0].cpu(), full, full[-STEPS:] if generated is None else generated)


def _logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Logits [positions, vocabulary] of one text, without a cache."""
    generates: Any = model
    inputs = generates.prepare_inputs_for_generation(
        tokens, attention_mask=torch.ones_like(tokens), use_cache=False
    )
    # Some families compute the last position's alone; 0 stands for all.
    inputs |= {key: 0 for key in inputs if key.endswith("logits_to_keep")}
    return model(**inputs).logits[0]


@contextmanager
def _plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Hide the model's generation settings, from which `generate` would take penalties."""
    settings = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = settings
