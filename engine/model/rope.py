"""Rotary embeddings whose angles change once a text is longer than the model was trained for."""

from collections.abc import Collection
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel


class ChangingRope:
    """The state of a model's rotary embeddings that depends on the length of the text."""

    def __init__(self, model: PreTrainedModel) -> None:
        rotary: list[Any] = [part for part in model.modules() if hasattr(part, "rope_type")]
        self._dynamic = [part for part in rotary if "dynamic" in _kinds(part)]
        limits = [part.original_max_seq_len for part in self._dynamic]
        for part in rotary:
            if "longrope" in _kinds(part):
                limits += [
                    parameters["original_max_position_embeddings"]
                    for parameters in rope_parameters(model)
                    if "original_max_position_embeddings" in parameters
                ]
        self.limit: int | None = min(limits, default=None)
        """The most positions at which the angles are still the same; None if they never change."""
        self.rereads = self.limit is not None and _rereads(model, self.limit)
        """Whether `generate` reads a whole text again once it is longer than the limit (Phi-3)."""

    def crosses(self, before: int, after: int) -> bool:
        """Whether `generate` reads the whole text again between these lengths."""
        return self.rereads and self.limit is not None and before <= self.limit < after

    def forget(self) -> None:
        """Reset the angles to a short text's: stock code keeps those of the longest so far."""
        for part in self._dynamic:
            for name in [name for name in vars(part) if name.endswith("max_seq_len_cached")]:
                setattr(part, name, part.original_max_seq_len)
            for name, original in [*part.named_buffers(recurse=False)]:
                if name.endswith("original_inv_freq"):
                    current = name.replace("original_inv_freq", "inv_freq")
                    part.register_buffer(current, original.clone(), persistent=False)


def rope_parameters(model: PreTrainedModel) -> list[dict[str, Any]]:
    """Rotary parameters of the config: one set, which may be empty, or one per kind of layer."""
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return [part for part in parameters.values() if isinstance(part, dict)] or [parameters]


def _kinds(rotary: Any) -> Collection[str]:
    """Kinds of scaling: one, or one per kind of layer."""
    kinds = rotary.rope_type
    return kinds.values() if isinstance(kinds, dict) else [kinds]


def _rereads(model: PreTrainedModel, limit: int) -> bool:
    """Whether the model's `generate` ignores a cache of `limit` positions for the next one."""
    cache = DynamicCache()
    keys = torch.zeros(1, 1, limit, 1)
    cache.update(keys, keys, 0)
    tokens = torch.zeros(1, limit + 1, dtype=torch.int64)
    generates: Any = model
    inputs = generates.prepare_inputs_for_generation(
        tokens, past_key_values=cache, attention_mask=torch.ones_like(tokens), use_cache=True
    )
    return inputs.get("past_key_values") is None
