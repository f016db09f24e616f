"""Stop sequences of generated texts, as lm-eval finds them and cuts the text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ..foreign import foreign_code

LOOKBACK = 2
"""Tokens that are decoded beside as many as the stop sequence has, as it may be written with other
tokens: lm-eval's number."""


class StopSequences:
    """Stop sequences of a prompt, found in the tokens after it."""

    def __init__(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        self._texts = texts
        self._tokenizer = tokenizer
        with foreign_code("the tokenizer cannot turn a stop sequence into tokens"):
            own = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        self._windows = [len(tokens) + LOOKBACK for tokens in own]

    def reached(self, tokens: list[int]) -> bool:
        """Whether the text of the last tokens, special ones included, has a stop sequence."""
        return any(
            text in self._decode(tokens[-window:], skip_special_tokens=False)
            for text, window in zip(self._texts, self._windows, strict=True)
        )

    def cut_text(self, tokens: list[int]) -> str:
        """Text of all tokens but special ones, up to the first stop sequence."""
        text = self._decode(tokens, skip_special_tokens=True)
        for stop in filter(None, self._texts):
            text = text.split(stop)[0]
        return text

    def _decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        with foreign_code("the tokenizer cannot turn tokens into text"):
            text = self._tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)
        assert isinstance(text, str)
        return text
