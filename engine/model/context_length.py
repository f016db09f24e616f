"""The length of a text that a model was made for."""

from transformers import PreTrainedModel

from .rope import rope_parameters

_SCALED = ("linear", "dynamic", "yarn")
"""Kinds of rotary scaling whose configs name the length before scaling; those of LongRoPE and
Llama 3 name the length after it."""


def context_length(model: PreTrainedModel) -> int | None:
    """The most positions that the model takes, after linear, dynamic or YaRN scaling; None if its
    config names none."""
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len")
    lengths = (getattr(config, name, None) for name in names)
    # XLNet says -1.
    length = next((length for length in lengths if length and length > 0), None)
    scalings = rope_parameters(model)
    # For kinds of layers with scalings of their own, the config names the length that all take.
    if length is None or len(scalings) > 1:
        return length
    (scaling,) = scalings
    factor = scaling.get("factor")
    if not isinstance(factor, int | float) or scaling.get("rope_type") not in _SCALED:
        return length
    trained = scaling.get("original_max_position_embeddings") or length
    return max(length, int(trained * factor))
