"""Tokenizers as users save them: of every kind, too large, and broken."""

import json
import struct
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.model.loading import load
from prunetui.engine.model.tokenizer import decode, encode, read_tokenizer
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from tokenizers import Regex, pre_tokenizers
from transformers import AutoConfig

from ..support.models import VOCABULARY, make_tokenizer, save_model_directory
from ..support.steps import decode_all, lane_tokens

TOO_MANY = 10_001


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    AutoConfig.for_model("llama", vocab_size=VOCABULARY).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def change(file: Path, **fields: object) -> None:
    before = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(before | fields), "utf-8")


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("tokenizer.json", {"added_tokens": [{}] * TOO_MANY}),
        ("tokenizer_config.json", {"added_tokens_decoder": {n: {} for n in range(TOO_MANY)}}),
        ("tokenizer_config.json", {"extra_special_tokens": ["x"] * TOO_MANY}),
        ("special_tokens_map.json", {"additional_special_tokens": ["x"] * TOO_MANY}),
        ("added_tokens.json", {str(number): number for number in range(TOO_MANY)}),
    ],
)
def test_many_more_tokens_than_the_model_knows_are_refused_before_they_are_loaded(
    directory: Path, file: str, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(directory / file, **fields)
    sentence = f"{file} of tiny adds {TOO_MANY} tokens, and the model knows {VOCABULARY}"
    with pytest.raises(UserError, match=sentence):
        read_tokenizer(directory, "tiny", VOCABULARY, trust=False)
    # As many as the model knows are its own affair.
    asked = []
    monkeypatch.setattr(
        "prunetui.engine.model.tokenizer.AutoTokenizer.from_pretrained",
        lambda folder, **_: asked.append(folder),
    )
    read_tokenizer(directory, "tiny", TOO_MANY, trust=False)
    assert asked == [directory]


def test_a_file_that_is_far_too_large_is_not_read(directory: Path) -> None:
    with (directory / "added_tokens.json").open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(UserError, match=r"added_tokens.json has more than 500 MB"):
        read_tokenizer(directory, "tiny", VOCABULARY, trust=False)


@pytest.mark.parametrize("content", ["", "{", "[]", "\ud800", "[" * 100_000, '{"added_tokens": 1}'])
def test_a_tokenizer_that_cannot_be_read_is_named(directory: Path, content: str) -> None:
    (directory / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError) as problem:
        read_tokenizer(directory, "tiny", VOCABULARY, trust=False)
    assert str(problem.value).startswith("tiny has no tokenizer that can be read (")
    assert str(problem.value).endswith("; put its tokenizer.json beside config.json")


def test_a_panic_is_a_sentence() -> None:
    """A regular expression that gives up panics in the Rust code."""
    tokenizer = make_tokenizer()
    assert encode(tokenizer, "aab") == [65, 65, 66]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    with pytest.raises(UserError, match=r"cannot turn the text into tokens \(.*retry-limit"):
        encode(tokenizer, "a" * 60 + "b")
    with pytest.raises(UserError, match="cannot turn tokens into text"):
        decode(tokenizer, [-1])


def sentencepiece_model() -> bytes:
    """A `tokenizer.model` of single characters and bytes, as a protobuf message."""

    def varint(number: int) -> bytes:
        high, low = divmod(number, 128)
        return bytes([low]) if not high else bytes([low | 128]) + varint(high)

    def field(number: int, kind: int, body: bytes) -> bytes:
        return varint(number << 3 | kind) + body

    def text(number: int, raw: bytes) -> bytes:
        return field(number, 2, varint(len(raw)) + raw)

    normal, unknown, control, byte = 1, 2, 3, 6
    pieces = [("<unk>", unknown), ("<s>", control), ("</s>", control)]
    pieces += [(f"<0x{number:02X}>", byte) for number in range(256)]
    pieces += [(letter, normal) for letter in "▁aBc"]
    listed = [
        text(1, name.encode()) + field(2, 5, struct.pack("<f", -place)) + field(3, 0, varint(kind))
        for place, (name, kind) in enumerate(pieces)
    ]
    byte_pairs = field(3, 0, varint(2)) + field(35, 0, varint(1))
    as_it_is = text(1, b"identity") + field(3, 0, varint(1)) + field(5, 0, varint(1))
    return b"".join(text(1, piece) for piece in listed) + text(2, byte_pairs) + text(3, as_it_is)


def test_a_tokenizer_of_sentencepiece_alone_is_read(tmp_path: Path) -> None:
    save_model_directory(tmp_path, vocab_size=263)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).unlink()
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    change(tmp_path / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", **names)
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model())
    options = Options(
        model=str(tmp_path), prompt="a Bc 世", variants=("control",), max_new_tokens=8
    )
    session = open_session(options, None, lambda *_: None)
    tokens = session.trace.header.prompt.tokens
    space, a, b, c = range(259, 263)
    ours = [byte + 3 for byte in "世".encode()]
    assert tokens[-9:] == [space, a, space, b, c, space, *ours]
    said = lane_tokens(decode_all(session))
    tokenizer = load(options, lambda *_: None).tokenizer
    whole = decode(tokenizer, tokens + said).removeprefix(decode(tokenizer, tokens))
    assert session.trace.text(0).count("\ufffd") <= whole.count("\ufffd")
    if "\ufffd" not in whole:
        assert session.trace.text(0) == whole
