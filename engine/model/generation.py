"""A model's generation settings: its end tokens, and notes on settings that are not followed."""

from typing import TypeGuard

from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEUTRAL = {
    "num_beams": 1,
    "repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "forced_decoder_ids": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "remove_invalid_values": False,
    "guidance_scale": 1,
    "watermarking_config": None,
    "stop_strings": None,
    "max_time": None,
    "constraints": None,
    "force_words_ids": None,
    "penalty_alpha": 0,
    "dola_layers": None,
    "diversity_penalty": 0,
}
"""Settings that change which tokens `generate` gives, and the values that change nothing."""

SAMPLING = {
    "temperature": 1,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "top_h": None,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
}
"""Settings that change which tokens `generate` samples, and the values that change nothing."""


def generation_notes(model: PreTrainedModel) -> list[str]:
    """Notes on settings that lockstep decoding does not follow."""
    notes = []
    if ignored := _changed_settings(model, NEUTRAL):
        notes.append(
            f"The model's generation settings say {ignored}; decoding here does not follow them."
        )
    if getattr(model.generation_config, "do_sample", None):
        settings = _changed_settings(model, SAMPLING)
        how = f" with {settings}" if settings else ""
        notes.append(
            f"The model's generation settings sample{how}; decoding here "
            "samples as --temperature, --top-k and --top-p say."
        )
    vocabulary = model.config.get_text_config().vocab_size
    notes += [
        f"The model's generation settings name the end token {_short(token)}, which is no token "
        "of the model and ends nothing."
        for token in _configured_ends(model)
        if not _is_token(token) or token >= vocabulary
    ]
    return notes


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The end tokens of the model's generation settings and of its tokenizer."""
    return {
        token for token in [*_configured_ends(model), tokenizer.eos_token_id] if _is_token(token)
    }


def _configured_ends(model: PreTrainedModel) -> list[object]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    tokens = configured if isinstance(configured, list) else [configured]
    return [token for token in tokens if token is not None]


def _is_token(value: object) -> TypeGuard[int]:
    """Whether a configured value can be a token: some files have strings and dictionaries."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _changed_settings(model: PreTrainedModel, neutral: dict[str, object]) -> str:
    """Text of the settings that are not neutral, with their values."""
    values = {name: getattr(model.generation_config, name, None) for name in neutral}
    return ", ".join(
        f"{name} {_short(value)}"
        for name, value in values.items()
        if value not in (None, [], {}, neutral[name])
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
