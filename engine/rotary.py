"""Rotary factors that change with the length of the text: dynamic NTK scaling and LongRoPE.

Keys in a cache keep the factors of the length at which they were read. With dynamic scaling stock
`generate` lives with that, so it depends on how a text came in. With LongRoPE it reads all tokens
again where the factors change.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class ChangingFactors:
    kind: Literal["dynamic", "longrope"]
    limit: int
    """Positions after which the factors are others."""


def changing_factors(model: PreTrainedModel) -> ChangingFactors | None:
    """None for a model whose rotary factors are the same at every length."""
    config = model.config.get_text_config()
    for parameters in rope_parameters(model):
        if (kind := parameters.get("rope_type")) == "longrope":
            limit = parameters.get("original_max_position_embeddings")
            return ChangingFactors(kind, limit or config.max_position_embeddings)
        if kind == "dynamic":
            return ChangingFactors(kind, config.max_position_embeddings)
    return None


def rope_parameters(model: PreTrainedModel) -> list[dict[str, Any]]:
    """Those of the config: one set, which may be empty, or one for each kind of layer."""
    said = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    nested = [part for part in said.values() if isinstance(part, dict)]
    return nested or [said]


def forget_length(model: PreTrainedModel) -> None:
    """Put dynamic factors back to those of a short text, as in a model that has read none."""
    for module in model.modules():
        if not hasattr(module, "original_max_seq_len"):
            continue
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)
        for name in [name for name in _tensors(module) if name.endswith("original_inv_freq")]:
            module.register_buffer(
                name.replace("original_", ""), getattr(module, name), persistent=False
            )


def _tensors(module: nn.Module) -> list[str]:
    return [*vars(module), *module._buffers]
