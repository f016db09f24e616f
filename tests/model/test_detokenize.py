"""Incremental decoding of tokens to text, against the tokenizers' own."""

import random
from itertools import groupby
from pathlib import Path

import pytest
from prunetui.engine.model.detokenize import LaneText, TokenTexts
from prunetui.engine.model.tokenizer import decode
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.records import Step
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ..support.models import make_speaker, make_spm_tokenizer, make_tokenizer, save_model_directory
from ..support.steps import present, token_of

TEXT = "Grüße an die 世界: 🎉🎉 plain letters, then 𝔱𝔢𝔵𝔱 again, for longer than any context."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes."""
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
    assert [lane.add(lead) for _ in range(8)] == ["", *["\ufffd"] * 7]
    assert "".join(lane.add(token) for token in ids(tokenizer, "界 世")) == "\ufffd界 世"
    # The last lead byte began a character.
    assert [lane.add(lead), lane.add(ids(tokenizer, "x")[0])] == ["", "\ufffdx"]


def test_what_is_incomplete_shows_with_the_last_token(tokenizer: PreTrainedTokenizerFast) -> None:
    for kind in (tokenizer, make_spm_tokenizer()):
        *_, lead, middle, _ = ids(kind, "界")
        lane = LaneText(kind, [])
        count = len("\ufffd") if kind is tokenizer else 2
        assert [lane.add(lead), lane.add(middle, last=True)] == ["", "\ufffd" * count]
        assert [lane.flush(), lane.add(ids(kind, "x")[-1])] == ["", "x"]


def bytes_of(raw: bytes) -> list[int]:
    return [byte + 3 for byte in raw]


def test_an_invalid_byte_is_one_and_takes_nothing_with_it() -> None:
    """Byte tokens of a tokenizer of words, with an invalid byte among valid ones."""
    spm = make_spm_tokenizer()
    space, letter = (spm.convert_tokens_to_ids(piece) for piece in ("▁", "a"))
    script = [*bytes_of("你好".encode()), *bytes_of(b"\xff"), *bytes_of("漢".encode()), space]
    script += [*bytes_of("😀".encode()[:2]), letter, *bytes_of("é\n".encode()), 400, letter, 2]
    lane = LaneText(spm, ids(spm, "x"))
    shown = [lane.add(token) for token in script]
    assert shown[:11] == ["", "", "你", "", "", "好", "\ufffd", "", "", "漢", " "]
    assert shown[11:] == ["", "", "\ufffd\ufffda", "", "é", "\n", "<400>", "a", "</s>"]


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes and of pairs and triples of them, valid UTF-8 or not, as from merges."""
    numbers, alphabet = random.Random(0), sorted(pre_tokenizers.ByteLevel.alphabet())
    characters = "".join(pre_tokenizers.ByteLevel(False).pre_tokenize_str("世界é🎉")[0][0])
    pieces = {characters[first : first + size] for first in range(12) for size in (2, 3, 5)}
    pieces |= {"".join(numbers.choices(alphabet, k=2)) for _ in range(50)}
    tokenizer = Tokenizer(
        models.BPE(
            {
                piece: token
                for token, piece in enumerate([*alphabet, *sorted(pieces - {*alphabet})])
            },
            [],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def sequences(tokenizer: PreTrainedTokenizerFast, count: int) -> list[list[int]]:
    """Random tokens, among them whole characters and their beginnings."""
    numbers = random.Random(1)
    made = []
    for _ in range(count):
        tokens: list[int] = []
        for _ in range(numbers.randrange(1, 12)):
            kind = numbers.randrange(4)
            character = numbers.choice("aé世🎉\n\ufffd")
            encoded = ids(tokenizer, character)
            if kind == 0:
                tokens += numbers.choices(range(len(tokenizer)), k=numbers.randrange(1, 4))
            elif kind == 1:
                tokens += encoded[: numbers.randrange(1, len(encoded) + 1)]
            else:
                tokens += encoded
        made.append(tokens)
    return made


def check_byte_level(count: int) -> None:
    tokenizer = pieces_tokenizer()
    alphabet = make_tokenizer()
    for number, tokens in enumerate(sequences(tokenizer, count)):
        prompt = [token - 1 for token in ids(alphabet, ["", "a 世", "prompt 🎉🎉"][number % 3])]
        before = len(decode(tokenizer, prompt))
        lane, text = LaneText(tokenizer, prompt), ""
        for place, token in enumerate(tokens):
            text += lane.add(token)
            whole = decode(tokenizer, prompt + tokens[: place + 1])[before:]
            # No more than one U+FFFD waits, which may become a character.
            assert text in (whole, whole.removesuffix("\ufffd"))
        assert text + lane.flush() == decode(tokenizer, prompt + tokens)[before:]


def is_byte(token: int) -> bool:
    return 3 <= token < 259


def read_each_run(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> str:
    """The tokenizer's own text, with U+FFFD for each byte of an invalid run."""
    texts = []
    for bytewise, run in groupby(tokens, is_byte):
        if bytewise:
            raw = bytes(token - 3 for token in run)
            # Longer where several bytes are one U+FFFD to Python.
            texts.append(raw.decode("utf-8", "surrogateescape"))
        else:
            texts.append(decode(tokenizer, [*ids(tokenizer, "a"), *run])[1:])
    return "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for text in texts for c in text)


def check_byte_fallback(count: int) -> None:
    tokenizer = make_spm_tokenizer()
    valid = 0
    for number, tokens in enumerate(sequences(tokenizer, count)):
        prompt = ids(tokenizer, ["x", "a 世", "prompt 🎉🎉"][number % 3])
        lane = LaneText(tokenizer, prompt)
        text = "".join(lane.add(token) for token in tokens) + lane.flush()
        assert text == read_each_run(tokenizer, tokens)
        whole = decode(tokenizer, prompt + tokens)
        if "\ufffd" not in whole:
            valid += 1
            assert decode(tokenizer, prompt) + text == whole
    assert valid > count / 20


def test_texts_are_the_tokenizers_own() -> None:
    check_byte_level(300)
    check_byte_fallback(300)


@pytest.mark.slow
def test_texts_are_the_tokenizers_own_of_many() -> None:
    check_byte_level(20_000)
    check_byte_fallback(20_000)


def run(model: Path, prompt: str, **options) -> list[Step]:
    session = open_session(
        Options(model=str(model), prompt=prompt, variants=("control",), **options),
        None,
        lambda *_: None,
    )
    while session.finished is None:
        session.step()
    return session.trace.steps


@pytest.mark.parametrize(("steps", "expected"), [(3, "a\ufffd\ufffd"), (4, "a界"), (9, "a界</s>")])
def test_a_lane_shows_all_that_it_says(steps: int, expected: str, tmp_path: Path) -> None:
    """Sessions that end within a character and after it, and a lane that ends."""
    spm = make_spm_tokenizer()
    prompt = ids(spm, "x")
    script = [spm.convert_tokens_to_ids("a"), *bytes_of("界".encode()), 2]
    make_speaker(len(prompt) - 1, script, len(spm)).save_pretrained(tmp_path)
    spm.save_pretrained(tmp_path)
    decoded = run(tmp_path, "x", max_new_tokens=steps)
    assert "".join(token.text for step in decoded if (token := step.lanes[0])) == expected


def test_tokens_that_the_tokenizer_does_not_know_have_a_text(tmp_path: Path) -> None:
    """Tokens of a padded vocabulary, in lanes, candidates and the lens."""
    save_model_directory(tmp_path, vocab_size=1000)
    decoded = run(tmp_path, "x", max_new_tokens=4, lens=True, ignore_eos=True)
    for step in decoded:
        lens, token = present(present(step.lens).lanes[0]), token_of(step)
        pairs = [*zip(step.candidates.tokens, step.candidates.texts, strict=True)]
        pairs += zip(lens.tokens + lens.raw_tokens, lens.texts + lens.raw_texts, strict=True)
        assert all((token > 256) == (text == f"<{token}>") for token, text in pairs)
        assert max(token for token, _ in pairs) > 256
        assert token.text == f"<{token.token}>"


def test_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = TokenTexts(tokenizer)
    space, letter, *halves = ids(tokenizer, " a界")
    assert [texts[token] for token in (space, letter)] == [" ", "a"]
    assert [texts[token] for token in halves] == ["\\xe7", "\\x95", "\\x8c"]
    # Asked for again, they are at hand.
    assert texts == {token: texts[token] for token in (space, letter, *halves)}
