"""Sessions on tokens that are given instead of a text, as an evaluation's items open."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.evaluation.generator import LaneGenerator
from prunetui.engine.evaluation.requests import Prompt
from prunetui.engine.model.tokenizer import encode
from prunetui.engine.options import Options
from prunetui.engine.results.item_session import item_options
from prunetui.engine.results.records import Answer, Header, Item, Option
from prunetui.engine.session import session as session_module
from prunetui.engine.session.changes import RestartChanges, changed_options
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Sampling
from tokenizers import processors

from ..support.evaluation import open_lanes
from ..support.evaluations import make_evaluation_header
from ..support.models import make_model, make_spm_tokenizer, make_tokenizer, save_model_directory
from ..support.steps import decode_all, drift_of, lane_tokens

VARIANTS = ("drop:attn=[1]", "drop:mlp=[0,2]")
TOKENS = (200, 0, 77, 12, 255, 3)
"""Bytes that are no UTF-8, with the end token in the middle."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _no_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not measure the bandwidth, which takes seconds and no test here reads."""
    monkeypatch.setattr(session_module, "read_bandwidth", lambda *_: 1e9)


def opened(model: Path, record_to: Path | None = None, **changes: Any) -> Session:
    settings = {"model": str(model), "variants": VARIANTS, "max_new_tokens": 5}
    return open_session(Options(**(settings | changes)), record_to, lambda *_: None)


def sampling_of(session: Session, **changes: Any) -> Sampling:
    fields = {
        name: getattr(session.trace.header.sampling, name) for name in Sampling.__struct_fields__
    }
    return Sampling(**(fields | changes))


def test_the_lanes_read_exactly_the_tokens(tiny: Path) -> None:
    session = opened(tiny, prompt_tokens=TOKENS, prompt="another text", raw=False)
    header = session.trace.header
    assert header.prompt.tokens == [*TOKENS]
    text = make_tokenizer().decode([*TOKENS])
    assert (header.prompt.text, header.prompt.chat_template) == (text, False)
    assert header.options is not None
    assert (header.options.prompt_tokens, header.options.prompt) == (TOKENS, text)
    steps = decode_all(session)
    lanes = open_lanes(tiny, *VARIANTS)
    (written,) = LaneGenerator(lanes).generate([Prompt(TOKENS, (), 5)], lambda _: None)
    for lane, expected in enumerate(written.lanes):
        assert lane_tokens(steps, lane) == expected.tokens


def test_the_text_of_tokens_leaves_out_what_the_tokenizer_sets_before_each(tmp_path: Path) -> None:
    """Else a prompt that a user edits would begin with it twice."""
    make_model("llama", vocab_size=300).save_pretrained(tmp_path)
    tokenizer = make_spm_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.save_pretrained(tmp_path)
    read = encode(tokenizer, "A dog", special=True)
    assert read[0] == 1
    session = opened(tmp_path, prompt_tokens=tuple(read))
    header = session.trace.header
    assert header.prompt.tokens == read
    assert encode(tokenizer, header.prompt.text, special=True) == read
    session.restart(prompt_tokens=tuple(read[1:]))
    assert session.trace.header.prompt.tokens == read[1:]


def test_another_text_takes_the_place_of_the_tokens_and_other_settings_do_not(tiny: Path) -> None:
    session = opened(tiny, prompt_tokens=TOKENS)
    text = session.trace.header.prompt.text
    first = session.trace
    session.restart(prompt=text, raw=True, prompt_tokens=TOKENS)
    assert session.trace is first
    session.restart(prompt=text, raw=True, sampling=sampling_of(session, max_new_tokens=3))
    assert session.trace.header.prompt.tokens == [*TOKENS]
    assert len(decode_all(session)) == 3
    session.restart(context="free")
    assert (session.trace.header.prompt.tokens, session.trace.header.context) == ([*TOKENS], "free")
    session.set_variants(["drop:mlp=1"])
    assert session.trace.header.prompt.tokens == [*TOKENS]
    session.restart(prompt="Hello", raw=True)
    header = session.trace.header
    assert header.prompt.tokens == make_tokenizer().encode("Hello")
    assert header.options is not None
    assert header.options.prompt_tokens is None
    session.restart(prompt_tokens=(5, 6))
    assert session.trace.header.prompt.tokens == [5, 6]
    # Read as a text, the bytes that are none have become others.
    session.restart(prompt=text)
    assert session.trace.header.prompt.tokens == make_tokenizer().encode(text)


def test_the_chat_template_takes_the_text_of_the_tokens(tmp_path: Path) -> None:
    make_model("llama").save_pretrained(tmp_path)
    make_tokenizer("{% for m in messages %}>{{ m['content'] }}{% endfor %}").save_pretrained(
        tmp_path
    )
    tokens = make_tokenizer().encode("Hello")
    session = opened(tmp_path, prompt_tokens=tuple(tokens))
    assert session.trace.header.prompt.tokens == tokens
    session.restart(prompt="Hello", raw=False)
    assert session.trace.header.prompt.tokens == make_tokenizer().encode(">Hello")
    session.restart(prompt_tokens=tuple(tokens))
    session.restart(prompt="Other", raw=True)
    assert session.trace.header.prompt.tokens == make_tokenizer().encode("Other")


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ((), "the prompt has no tokens; name one at least"),
        ((5, 257), "the prompt has token 257, and the model's tokens are 0 to 256"),
        ((-1,), "the prompt has token -1, and the model's tokens are 0 to 256"),
        ((7,) * 256, "the prompt has 256 tokens and the model's context 256; shorten it"),
    ],
)
def test_tokens_that_cannot_be_read_are_one_sentence(
    tiny: Path, tokens: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        opened(tiny, prompt_tokens=tokens)
    assert "\n" not in str(error.value)
    session = opened(tiny, prompt="Hello")
    before = session.trace
    with pytest.raises(UserError, match=sentence):
        session.restart(prompt_tokens=tokens)
    assert session.trace is before
    session.restart(sampling=sampling_of(session, max_new_tokens=2))
    assert session.trace.header.prompt.text == "Hello"


def test_edits_of_a_session_that_has_not_opened_take_the_place_of_tokens_too() -> None:
    options = Options(prompt="as it was", prompt_tokens=TOKENS, raw=True)

    def edited(**changes: Any) -> tuple[int, ...] | None:
        return changed_options(options, RestartChanges(**changes), templated=False).prompt_tokens

    assert edited(prompt="as it was", raw=True) == TOKENS
    assert edited(prompt="other", raw=True) is None
    assert edited(prompt="as it was", raw=False) is None


# -- answers by tokens ----------------------------------------------------------------------------


def test_answers_are_the_tokens_with_their_texts(tiny: Path) -> None:
    session = opened(tiny, prompt="Hello", answer_tokens=(9, 8), answers=("nine", "eight"))
    answers = session.trace.header.answers
    assert answers is not None
    assert (answers.texts, answers.tokens) == (["nine", "eight"], [9, 8])
    session.step()
    session.restart(answer_tokens=(40, 41))
    answers = session.trace.header.answers
    assert answers is not None
    decoded = [str(make_tokenizer().decode([token])) for token in (40, 41)]
    assert (answers.texts, answers.tokens) == (decoded, [40, 41])
    # The same texts again, from the dialog, are the same tokens.
    trace = session.trace
    session.restart(answers=tuple(decoded))
    assert session.trace is trace
    session.restart(prompt="Other")
    assert session.trace.header.answers == answers
    session.restart(answers=("p", "q"))
    answers = session.trace.header.answers
    assert answers is not None
    assert answers.tokens == [make_tokenizer().encode(text)[0] for text in "pq"]


@pytest.mark.parametrize(
    ("tokens", "texts", "sentence"),
    [
        ((9, 300), None, "the list of answers has token 300, and the model's tokens are 0 to 256"),
        ((9, 8, 9), None, "the answer's token 9 is named twice"),
        ((9, 8), ("nine",), "there are 1 texts of answers and 2 tokens"),
    ],
)
def test_answers_that_are_none_are_one_sentence(
    tiny: Path, tokens: tuple[int, ...], texts: tuple[str, ...] | None, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        opened(tiny, prompt="Hello", answer_tokens=tokens, answers=texts)


# -- traces ---------------------------------------------------------------------------------------


def test_a_trace_of_tokens_is_resumed_on_them(tiny: Path, tmp_path: Path) -> None:
    whole = decode_all(opened(tiny, prompt_tokens=TOKENS, answer_tokens=(9, 8)))
    path = tmp_path / "a.trace.jsonl"
    session = opened(tiny, path, prompt_tokens=TOKENS, answer_tokens=(9, 8))
    session.step()
    session.step()
    session.close()
    trace = read_trace(path)
    options = trace.header.options
    assert options is not None
    again = open_session(options, None, lambda *_: None, resume=trace)
    assert again.trace.header.prompt == trace.header.prompt
    assert again.trace.header.answers == trace.header.answers
    steps = decode_all(again)
    for lane in range(3):
        assert lane_tokens(steps, lane) == lane_tokens(whole, lane)
    again.restart(sampling=sampling_of(again, max_new_tokens=1))
    assert again.trace.header.prompt.tokens == [*TOKENS]


# -- items ----------------------------------------------------------------------------------------


def an_item(**fields: Any) -> Item:
    settings: dict[str, Any] = {
        "task": "sums",
        "index": 3,
        "hash": "",
        "question": "Hello?",
        "gold": "",
        "contexts": ["Hello?"],
        "tokens": [*TOKENS],
        "answers": [Answer()] * 3,
    }
    return Item(**(settings | fields))


def header_with(options: Options) -> Header:
    return msgspec.structs.replace(make_evaluation_header([]), options=options)


def options_of(*tokens: list[int], contexts: tuple[int, ...] = ()) -> list[Option]:
    padded = contexts or (0,) * len(tokens)
    return [
        Option(text=f"option {i}", tokens=each, context=context)
        for i, (each, context) in enumerate(zip(tokens, padded, strict=True))
    ]


def test_an_item_opens_as_a_session_with_its_tokens_drift_and_text(tiny: Path) -> None:
    lanes = open_lanes(tiny, *VARIANTS)
    (written,) = LaneGenerator(lanes).generate([Prompt(TOKENS, ("\n",), 5)], lambda _: None)
    item = an_item(drift=written.drift, max_new_tokens=5, until=["\n"])
    header = header_with(lanes.options)
    session = open_session(item_options(header, item), None, lambda *_: None)
    assert session.trace.header.prompt.tokens == item.tokens
    assert session.trace.header.sampling.max_new_tokens == 5
    step = session.step()
    for variant, drift in enumerate(written.drift):
        opened_drift = drift_of(step, variant + 1)
        for name in ("cos_h", "cos_z", "cos_p", "kl", "kl_rev", "orth_z", "dp", "logq"):
            assert getattr(opened_drift, name) == pytest.approx(getattr(drift, name), abs=1e-5)
        assert opened_drift.top1 == drift.top1


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        (options_of([7], [8]), (7, 8)),
        (options_of([7, 1], [8, 1, 2], [9]), (7, 8, 9)),
        (options_of([7, 1], [7, 2]), None),
        (options_of([7], [8], contexts=(0, 1)), None),
        (options_of([7]), None),
        ([], None),
    ],
)
def test_an_items_options_are_the_answers_where_their_first_tokens_differ(
    tiny: Path, options: list[Option], tokens: tuple[int, ...] | None
) -> None:
    header = header_with(Options(model=str(tiny), temperature=0.9, top_k=3, ignore_eos=True))
    made = item_options(header, an_item(options=options))
    assert made.answer_tokens == tokens
    assert (made.prompt_tokens, made.raw, made.context) == (TOKENS, True, "both")
    assert (made.temperature, made.top_k, made.top_p, made.ignore_eos) == (0, 0, 1, False)
    assert made.max_new_tokens == header.options.max_new_tokens


def test_an_item_without_tokens_opens_as_no_session(tiny: Path) -> None:
    header = header_with(Options(model=str(tiny)))
    with pytest.raises(UserError, match="item 3 of sums has no tokens before its answer"):
        item_options(header, an_item(tokens=[]))
