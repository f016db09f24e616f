"""Rotary embeddings that turn by other angles once more has been read than a model was made for."""

from collections.abc import Collection
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel


class ChangingRope:
    """What of a model's rotary embedding depends on how much is read."""

    def __init__(self, model: PreTrainedModel) -> None:
        rotary: list[Any] = [part for part in model.modules() if hasattr(part, "rope_type")]
        self._dynamic = [part for part in rotary if "dynamic" in _kinds(part)]
        limits = [part.original_max_seq_len for part in self._dynamic]
        for part in rotary:
            if "longrope" in _kinds(part):
                limits += [
                    said["original_max_position_embeddings"]
                    for said in rope_parameters(model)
                    if "original_max_position_embeddings" in said
                ]
        self.limit: int | None = min(limits, default=None)
        """The positions up to which the angles are the same; None if they always are."""
        self.rereads = self.limit is not None and _rereads(model, self.limit)

    def crosses(self, before: int, after: int) -> bool:
        """Past the limit `generate` does not go on with the keys of a shorter text, but reads all
        again (Phi-3)."""
        return self.rereads and self.limit is not None and before <= self.limit < after

    def forget(self) -> None:
        """Turn the next tokens by the angles of their own text's length: stock code keeps
        those of the longest text so far."""
        for part in self._dynamic:
            for name in [name for name in vars(part) if name.endswith("max_seq_len_cached")]:
                setattr(part, name, part.original_max_seq_len)
            for name, original in [*part.named_buffers(recurse=False)]:
                if name.endswith("original_inv_freq"):
                    turned = name.replace("original_inv_freq", "inv_freq")
                    part.register_buffer(turned, original.clone(), persistent=False)


def rope_parameters(model: PreTrainedModel) -> list[dict[str, Any]]:
    """Those of the config: one set, which may be empty, or one for each kind of layer."""
    said = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return [part for part in said.values() if isinstance(part, dict)] or [said]


def _kinds(rotary: Any) -> Collection[str]:
    """One, or one for each type of layer."""
    kinds = rotary.rope_type
    return kinds.values() if isinstance(kinds, dict) else [kinds]


def _rereads(model: PreTrainedModel, limit: int) -> bool:
    """Its own code leaves a cache of `limit` positions out when one more is to be read."""
    cache = DynamicCache()
    keys = torch.zeros(1, 1, limit, 1)
    cache.update(keys, keys, 0)
    tokens = torch.zeros(1, limit + 1, dtype=torch.int64)
    generates: Any = model
    inputs = generates.prepare_inputs_for_generation(
        tokens, past_key_values=cache, attention_mask=torch.ones_like(tokens), use_cache=True
    )
    return inputs.get("past_key_values") is None
