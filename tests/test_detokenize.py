"""Tokens back to text, one at a time."""

import pytest
from prunetui.engine.detokenize import LaneText, TokenTexts
from transformers import PreTrainedTokenizerFast

from .models import make_tokenizer

TEXT = "Grüße an die 世界: 🎉🎉 plain letters, then 𝔱𝔢𝔵𝔱 again, for longer than any context."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Of single bytes."""
    return make_tokenizer()


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("prompt", ["", "é", "a prompt that is longer than the context: 界"])
def test_a_character_shows_when_its_last_byte_is_there(
    tokenizer: PreTrainedTokenizerFast, prompt: str
) -> None:
    lane = LaneText(tokenizer, ids(tokenizer, prompt))
    shown = [lane.add(token) for token in ids(tokenizer, TEXT)]
    expected = [part for c in TEXT for part in [""] * (len(c.encode()) - 1) + [c]]
    assert shown == expected


def test_bytes_that_are_no_character_show_as_such_and_take_nothing_with_them(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    lane = LaneText(tokenizer, [])
    lead = ids(tokenizer, "界")[0]
    broken = [lane.add(lead) for _ in range(8)]
    assert broken == ["", "", "", "\ufffd" * 4] * 2
    assert "".join(lane.add(token) for token in ids(tokenizer, "x 世")) == "x 世"


def test_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = TokenTexts(tokenizer)
    space, letter, *halves = ids(tokenizer, " a界")
    assert [texts[token] for token in (space, letter)] == [" ", "a"]
    assert [texts[token] for token in halves] == ["\\xe7", "\\x95", "\\x8c"]
    # Asked for again, they are at hand.
    assert texts == {token: texts[token] for token in (space, letter, *halves)}
