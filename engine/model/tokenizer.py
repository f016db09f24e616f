"""A model's tokenizer, code and data that are not ours: what they raise becomes a sentence."""

from pathlib import Path
from typing import Any

import msgspec
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..errors import UserError
from ..foreign import foreign_code

MOST_BYTES = 500_000_000
MOST_ADDED = 10_000
"""Added tokens that load in seconds, whether the model knows them or not."""


class _TokenizerFile(msgspec.Struct):
    """What any of a tokenizer's files may list as added tokens."""

    added_tokens: list[msgspec.Raw] = []
    added_tokens_decoder: dict[str, msgspec.Raw] = {}
    additional_special_tokens: list[msgspec.Raw] = []
    extra_special_tokens: list[msgspec.Raw] | dict[str, msgspec.Raw] = []


_LISTS = {
    "tokenizer.json": _TokenizerFile,
    "tokenizer_config.json": _TokenizerFile,
    "special_tokens_map.json": _TokenizerFile,
    "added_tokens.json": dict[str, msgspec.Raw],
}


def read_tokenizer(
    directory: Path, name: str, vocabulary: int, *, trust: bool
) -> PreTrainedTokenizerBase:
    """Raises `UserError` for a tokenizer that is not there, not whole, or that adds far more tokens
    than the `vocabulary` of the model has: those would take minutes to load."""
    for file, kind in _LISTS.items():
        added = _added_tokens(directory / file, kind)
        if added > max(vocabulary, MOST_ADDED):
            raise UserError(
                f"{file} of {name} adds {added} tokens, and the model knows {vocabulary}; the two "
                "do not belong together"
            )
    with foreign_code(
        f"{name} has no tokenizer that can be read", "put its tokenizer.json beside config.json"
    ):
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=trust)


def _added_tokens(file: Path, kind: Any) -> int:
    """How many tokens a file lists; 0 where it cannot be read, which loading it will say."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file} has more than {MOST_BYTES // 10**6} MB; is it a tokenizer's?")
        listed = msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, RecursionError):
        return 0
    return max(map(len, msgspec.structs.astuple(listed))) if kind is _TokenizerFile else len(listed)


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = False) -> list[int]:
    """A text's tokens; `special` adds those that the tokenizer sets around a text."""
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
