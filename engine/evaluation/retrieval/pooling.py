"""From a text to the tokens whose embedding stands for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import OptionError
from ...model.context_length import context_length
from ...model.loading import Loaded
from ...model.prompts import check_known, encode_open, vocabulary_size
from ...model.tokenizer import encode
from ...results.records import Settings
from ..requests import Tokens

ONE_WORD = ('This sentence : "', '" means in one word:"')
"""Prompt around a text, of PromptEOL (arXiv 2307.16645): the last token's embedding is that of the
word to come."""


@dataclass(frozen=True)
class EmbeddedText:
    """A text as it is embedded."""

    text: str
    """The prompt or the instruction included."""
    tokens: Tokens
    """Empty where the tokenizer makes none of an empty text, and nothing is appended."""
    cut: int
    """Tokens of the text that were cut off on the right."""


class TextReader:
    """Turns texts into tokens, as the settings pool them.

    `last` appends the end token to each text, `prompt` asks for one word, `mean` takes the text.
    """

    def __init__(self, loaded: Loaded, settings: Settings) -> None:
        """Raises `UserError` for a model without an end token where `last` needs one, and for a
        greatest length that leaves no room for a text."""
        self._loaded = loaded
        self._pooling = settings.pooling
        self._instruction = settings.instruction or ""
        context = context_length(loaded.model)
        self.length = min(settings.max_tokens, context or settings.max_tokens)
        """Tokens at most."""
        end: Any = loaded.tokenizer.eos_token_id
        self._end: int | None = end
        self._before, self._after = ONE_WORD if self._pooling == "prompt" else ("", "")
        self._tail = encode(loaded.tokenizer, self._after)
        """Tokens after a text that is cut."""
        if self._pooling == "last":
            if self._end is None:
                raise OptionError(
                    f"{loaded.name} has no end token, whose embedding stands for a text; --pooling "
                    "mean or prompt needs none"
                )
            self._tail = [self._end]
        room = self.length - len(self._tokens(self._before)) - len(self._tail)
        if room < 1:
            raise OptionError(
                f"--max-tokens {self.length} leaves no room for a text; "
                f"{self.length + 1 - room} are the fewest here"
            )

    @property
    def pooling(self) -> Literal["last", "mean"]:
        """Which positions an embedding is taken of."""
        return "mean" if self._pooling == "mean" else "last"

    @property
    def key(self) -> list[str]:
        """What the tokens of a text depend on, apart from the tokenizer."""
        return [self._pooling, str(self.length), self._before, self._after]

    def query(self, text: str) -> EmbeddedText:
        """A query, with the instruction before it."""
        return self.document(self._instruction + text)

    def document(self, text: str) -> EmbeddedText:
        whole = self._before + text + self._after
        tokens, cut = self._tokens(whole), 0
        if self._pooling == "last":
            tokens += self._tail
        if len(tokens) > self.length:
            # The text is cut, and not what follows it.
            kept = self.length - len(self._tail)
            cut = len(tokens) - self.length
            tokens = self._tokens(self._before + text)[:kept] + self._tail
        if tokens and max(tokens) >= vocabulary_size(self._loaded.model):
            check_known(tokens, self._loaded)
        return EmbeddedText(whole, tuple(tokens), cut)

    def check_ends(self, texts: Sequence[Tokens]) -> None:
        """Raise `AssertionError` if the embedding would be that of another token.

        With transformers 5 an end token that a tokenizer is asked for may vanish without a word.
        """
        if self._pooling == "last":
            for tokens in texts:
                assert tokens[-1] == self._end, f"the text ends in token {tokens[-1]}"

    def _tokens(self, text: str) -> list[int]:
        """Tokens of a text, without an end token of the tokenizer's own, which would come twice, or
        after the prompt."""
        return encode_open(text, self._loaded)[0]
