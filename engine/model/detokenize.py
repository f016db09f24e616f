"""Incremental decoding of tokens to text."""

import codecs
import re

from transformers import PreTrainedTokenizerBase

from .tokenizer import decode, encode

_INVALID = "\ufffd"
_CONTEXT = 6
"""At least as many tokens are decoded with a new one: enough for any UTF-8 character and for what a
tokenizer joins."""


class LaneText:
    """A decoder that returns what each new token adds to a lane's text.

    A character shows with the token that completes it, an invalid byte as U+FFFD. Together the
    parts are the tokenizer's own text, with two exceptions: a token that the tokenizer does not
    know shows as `<318>`, and an invalid byte of a byte-fallback tokenizer does not take back the
    characters shown before it, as in sentencepiece. (The tokenizers library makes U+FFFD of the
    whole run of bytes.)
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: list[int]) -> None:
        self._tokenizer = tokenizer
        # The prompt's end decides whether a word tokenizer sets a space before the first token.
        self._tokens = prompt[-_CONTEXT:]
        self._shown: int | None = None
        """How many characters of the text of `_tokens` are shown; None if not counted yet."""
        self._pending = ""
        """U+FFFD if later tokens may still complete its character, else empty."""
        self._bytes = _new_decoder()
        """Decoder with the bytes of an incomplete character, where each byte is a token."""

    def add(self, token: int, *, last: bool = False) -> str:
        """The text to show for a token; with the `last` one, also what is still incomplete."""
        text = self._add(token)
        return text + self.flush() if last else text

    def flush(self) -> str:
        """The text that is still incomplete, which counts as shown from now on."""
        text = self._pending + self._bytes.decode(b"", final=True)
        self._pending, self._shown = "", None
        return text

    def _add(self, token: int) -> str:
        piece = piece_of(self._tokenizer, token)
        if piece is None:
            return f"<{token}>"
        byte = _fallback_byte(self._tokenizer, token, piece)
        if byte is None:
            return self._bytes.decode(b"", final=True) + self._add_text(token)
        text = self._pending + self._bytes.decode(bytes([byte]))
        self._tokens = [*self._tokens, token][-_CONTEXT:]
        self._pending, self._shown = "", None
        return text

    def _add_text(self, token: int) -> str:
        if self._shown is None:
            self._shown = len(decode(self._tokenizer, self._tokens)) - len(self._pending)
        self._tokens.append(token)
        text = decode(self._tokenizer, self._tokens)
        # Of several U+FFFD in a row, the last alone may become a character.
        end = len(text) - text.endswith(_INVALID)
        added = text[self._shown : end]
        self._shown, self._pending = end, text[end:]
        if len(self._tokens) > 2 * _CONTEXT:
            self._tokens, self._shown = self._tokens[-_CONTEXT:], None
        return added


def piece_of(tokenizer: PreTrainedTokenizerBase, token: int) -> str | None:
    """The vocabulary entry of a token; None if the tokenizer does not know it."""
    try:
        piece = tokenizer.convert_ids_to_tokens(token)
    # Tokenizers that are Python code raise anything.
    except Exception:
        return None
    return piece if isinstance(piece, str) else None


def _fallback_byte(tokenizer: PreTrainedTokenizerBase, token: int, piece: str) -> int | None:
    """The byte that a token such as `<0xE4>` stands for; None if it stands for its text."""
    match = re.fullmatch("<0x([0-9A-F]{2})>", piece)
    if match is None or decode(tokenizer, [token]) == piece:
        return None
    return int(match[1], 16)


def _each_byte_invalid(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _INVALID * (error.end - error.start), error.end


codecs.register_error("prunetui.each_byte_invalid", _each_byte_invalid)


def _new_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="prunetui.each_byte_invalid")


class TokenTexts(dict[int, str]):
    """Texts of single tokens, leading space included; bytes of incomplete characters as `\\xe6`,
    tokens that the tokenizer does not know as `<318>`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._anchor = encode(tokenizer, "a")
        self._prefix = decode(tokenizer, self._anchor)

    def __missing__(self, token: int) -> str:
        self[token] = text = self._text(token)
        return text

    def _text(self, token: int) -> str:
        piece = piece_of(self._tokenizer, token)
        if piece is None:
            return f"<{token}>"
        # Alone, a word tokenizer's first token loses its leading space.
        text = decode(self._tokenizer, [*self._anchor, token])[len(self._prefix) :]
        return piece_bytes(piece) if _INVALID in text else text


def piece_bytes(piece: str) -> str:
    """Text of a vocabulary entry whose bytes are not valid UTF-8 by themselves."""
    if all(character in _BYTES for character in piece):
        raw = bytes(_BYTES[character] for character in piece)
        return raw.decode("utf-8", errors="backslashreplace")
    return piece


def _byte_alphabet() -> dict[str, int]:
    """Bytes by the characters of GPT-2's alphabet: printable ones stand for themselves, U+0100 and
    up for the others."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(others)
    }


_BYTES = _byte_alphabet()
