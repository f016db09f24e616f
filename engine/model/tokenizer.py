"""Tokenizers of models: loading, encoding and decoding, whose errors become sentences."""

from pathlib import Path
from typing import Any

import msgspec
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..errors import UserError
from ..foreign import foreign_code

MAX_FILE_BYTES = 500_000_000
MAX_ADDED_TOKENS = 10_000
"""Added tokens that load in seconds, even if the model does not know them."""


class _TokenizerFile(msgspec.Struct):
    """The lists of added tokens that a tokenizer's file may have."""

    added_tokens: list[msgspec.Raw] = []
    added_tokens_decoder: dict[str, msgspec.Raw] = {}
    additional_special_tokens: list[msgspec.Raw] = []
    extra_special_tokens: list[msgspec.Raw] | dict[str, msgspec.Raw] = []


_FILES = {
    "tokenizer.json": _TokenizerFile,
    "tokenizer_config.json": _TokenizerFile,
    "special_tokens_map.json": _TokenizerFile,
    "added_tokens.json": dict[str, msgspec.Raw],
}


def read_tokenizer(
    directory: Path, name: str, vocabulary: int, *, trust: bool
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises `UserError` for one that is not there, is not whole, or adds far more tokens than the
    `vocabulary` of the model has, which would take minutes to load.
    """
    for file, kind in _FILES.items():
        added = _added_tokens(directory / file, kind)
        if added > max(vocabulary, MAX_ADDED_TOKENS):
            raise UserError(
                f"{file} of {name} adds {added} tokens, and the model knows {vocabulary}; the two "
                "do not belong together"
            )
    with foreign_code(
        f"{name} has no tokenizer that can be read", "put its tokenizer.json beside config.json"
    ):
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=trust)


def _added_tokens(file: Path, kind: Any) -> int:
    """Number of tokens that a file adds; 0 if it cannot be read, which fails when it is loaded."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(
                f"{file} has more than {MAX_FILE_BYTES // 10**6} MB; is it a tokenizer's?"
            )
        listed = msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, RecursionError):
        return 0
    return max(map(len, msgspec.structs.astuple(listed))) if kind is _TokenizerFile else len(listed)


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = False) -> list[int]:
    """The tokens of a text; `special` adds those that the tokenizer sets around a text."""
    with foreign_code("the tokenizer cannot turn the text into tokens"):
        encoded: Any = tokenizer(text, add_special_tokens=special, verbose=False)
        return encoded["input_ids"]


def decode(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    """The text of tokens, special ones included."""
    with foreign_code("the tokenizer cannot turn tokens into text"):
        text = tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    assert isinstance(text, str)
    return text
