"""What a model makes of a person's texts: the tokens of a prompt and of its answers."""

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .errors import UserError
from .loading import Loaded
from .rotary import rope_parameters
from .trace import records

_SCALED = ("linear", "dynamic", "yarn")
"""Kinds of rotary scaling whose configs name the length before it; LongRoPE's and Llama 3's name
the one after it."""


def prompt_tokens(prompt: str, loaded: Loaded, raw: bool) -> tuple[list[int], bool]:
    """The tokens and whether the model's chat template was used, which `raw` forbids.

    Raises `UserError` for a prompt that makes no token, one that the model does not know, or is too
    long for the model.
    """
    if not prompt.strip():
        raise UserError("the prompt is empty; write something for the lanes to go on from")
    tokenizer = loaded.tokenizer
    templated = bool(tokenizer.chat_template) and not raw
    if templated:
        messages = [{"role": "user", "content": prompt}]
        encoded: Any = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True
        )
    else:
        encoded = tokenizer(prompt, verbose=False)
    tokens: list[int] = encoded["input_ids"]
    if not tokens:
        raise UserError("the tokenizer makes no token of this prompt; write another")
    check_known(tokens, loaded)
    limit = context_length(loaded.model)
    if limit is not None and len(tokens) >= limit:
        raise UserError(
            f"the prompt has {len(tokens)} tokens and the model's context {limit}; shorten it"
        )
    return tokens, templated


def check_known(tokens: list[int], loaded: Loaded) -> None:
    """Raise `UserError` for a token behind the model's vocabulary."""
    highest, size = max(tokens), vocabulary_size(loaded.model)
    if highest >= size:
        raise UserError(
            f"{loaded.tokenizer.decode([highest])!r} is the tokenizer's token {highest}, and the "
            f"model knows {size}; the two do not belong together"
        )


def find_answers(
    texts: tuple[str, ...] | None, loaded: Loaded, templated: bool
) -> records.Answers | None:
    """A to D if none are named: behind a space where a text goes on, without one where a message
    begins, and none at all if those are not a token each. Raises `UserError` for a named one."""
    tokenizer = loaded.tokenizer
    tried = texts or tuple(letter if templated else f" {letter}" for letter in "ABCD")
    tokens = []
    for text in tried:
        encoded = tokenizer.encode(text, add_special_tokens=False)
        if len(encoded) != 1 or encoded[0] in tokens:
            if texts is None:
                return None
            if len(encoded) == 1:
                raise UserError(f"the answer {text!r} is named twice; name each token once")
            raise UserError(
                f"the answer {text!r} is {len(encoded)} tokens and must be one; "
                "name another, with or without a space before it"
            )
        tokens += encoded
    if texts is None and max(tokens) >= vocabulary_size(loaded.model):
        return None
    check_known(tokens, loaded)
    return records.Answers(texts=[*tried], tokens=tokens)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """What the model's generation config and the tokenizer call an end."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    tokens = configured if isinstance(configured, list) else [configured]
    return {token for token in [*tokens, tokenizer.eos_token_id] if token is not None}


def vocabulary_size(model: PreTrainedModel) -> int:
    return model.config.get_text_config().vocab_size


def context_length(model: PreTrainedModel) -> int | None:
    """The most positions that the model takes, with linear, dynamic or YaRN scaling the scaled
    ones; None if its config names none."""
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len")
    length = next((length for name in names if (length := getattr(config, name, None))), None)
    scalings = rope_parameters(model)
    # Of kinds of layers that are scaled apart, the config names the length that all take.
    if length is None or len(scalings) > 1:
        return length
    (said,) = scalings
    factor = said.get("factor")
    if not isinstance(factor, int | float) or said.get("rope_type") not in _SCALED:
        return length
    trained = said.get("original_max_position_embeddings") or length
    return max(length, int(trained * factor))
