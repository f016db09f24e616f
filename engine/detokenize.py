"""Tokens back to text, one at a time."""

from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"
_CONTEXT = 6
"""Tokens decoded with a new one, at least: enough for any UTF-8 character and a tokenizer's
joins."""


class LaneText:
    """Says what each new token adds to a lane's text.

    A token that ends inside a UTF-8 character adds nothing; the one that completes it, all of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: list[int]) -> None:
        self._tokenizer = tokenizer
        # The prompt's end decides whether a word tokenizer sets a space before the first token.
        self._tokens = prompt[-_CONTEXT:]
        self._text = decode(tokenizer, self._tokens)
        """Of the tokens before those that are pending."""
        self._pending = 0

    def add(self, token: int) -> str:
        self._tokens.append(token)
        text = decode(self._tokenizer, self._tokens)
        self._pending += 1
        if text.endswith(_INCOMPLETE) and self._pending < 4:
            return ""
        added = text[len(self._text) :]
        if len(self._tokens) > 2 * _CONTEXT:
            self._tokens = self._tokens[-_CONTEXT:]
            text = decode(self._tokenizer, self._tokens)
        self._text, self._pending = text, 0
        return added


def decode(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


class TokenTexts(dict[int, str]):
    """The text of single tokens, leading space included; bytes of half characters as `\\xe6`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._prefix = decode(tokenizer, self._anchor)

    def __missing__(self, token: int) -> str:
        self[token] = text = self._text(token)
        return text

    def _text(self, token: int) -> str:
        # Alone, a word tokenizer's first token loses its leading space.
        text = decode(self._tokenizer, [*self._anchor, token])[len(self._prefix) :]
        if _INCOMPLETE not in text:
            return text
        piece = self._tokenizer.convert_ids_to_tokens(token)
        return piece_bytes(piece) if isinstance(piece, str) else f"<{token}>"


def piece_bytes(piece: str) -> str:
    """A vocabulary entry that is not whole text, with its bytes written out."""
    if all(character in _BYTES for character in piece):
        raw = bytes(_BYTES[character] for character in piece)
        return raw.decode("utf-8", errors="backslashreplace")
    return piece


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }


_BYTES = _byte_alphabet()
