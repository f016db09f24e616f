"""Restarts with other sampling and without the chat template, on a tiny model."""

from pathlib import Path

import pytest
import torch
from prunetui.engine.decode import prepared_lanes as lanes
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.decode.proof import Proof
from prunetui.engine.errors import UserError
from prunetui.engine.options import Context, Options
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Sampling

from ..support.models import make_model, make_tokenizer, save_model_directory

SAMPLED = Sampling(temperature=0.8, top_k=50, top_p=0.9, seed=5, max_new_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A model without and one with a chat template, which sets a > before the message."""
    folder = tmp_path_factory.mktemp("models")
    make_model("llama").save_pretrained(folder / "chat")
    make_tokenizer("{% for m in messages %}>{{ m['content'] }}{% endfor %}").save_pretrained(
        folder / "chat"
    )
    return {False: save_model_directory(folder / "plain"), True: folder / "chat"}


def opened(directory: Path, record_to: Path | None = None, **options: object) -> Session:
    settings = {"model": str(directory), "variants": ("drop:attn=[1]",), "prompt": "Hello"}
    settings |= {"max_new_tokens": 4, "ignore_eos": True}
    return open_session(Options(**(settings | options)), record_to, lambda *_: None)  # pyright: ignore[reportArgumentType]


def decoded(session: Session) -> list[list[int]]:
    while session.finished is None:
        session.step()
    return [[token.token for token in step.lanes if token] for step in session.trace.steps]


def test_other_sampling_begins_another_trace_as_if_opened_with_it(directories, tmp_path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = opened(directories[False], path)
    decoded(session)
    session.restart(sampling=SAMPLED)
    sampled = decoded(session)
    session.close()
    second = read_trace(tmp_path / "a-2.trace.jsonl")
    assert second.header.sampling == SAMPLED
    assert second.header.options is not None
    assert second.header.options.seed == 5
    assert len(read_trace(path).steps) == 4
    assert len(sampled) == 6
    asked = {name: getattr(SAMPLED, name) for name in Sampling.__struct_fields__}
    assert decoded(opened(directories[False], **asked)) == sampled


def test_the_same_again_goes_on_in_the_same_trace(directories) -> None:
    session = opened(directories[False])
    trace = session.trace
    session.step()
    session.restart(prompt="Hello", context="both", sampling=trace.header.sampling, raw=True)
    assert session.trace is trace
    assert trace.steps == []


def test_the_chat_template_can_be_left_out_and_taken_again(directories) -> None:
    session = opened(directories[True])
    tokens = make_tokenizer()("Hello")["input_ids"]
    templated = session.trace.header.prompt
    assert (len(templated.tokens), templated.chat_template) == (len(tokens) + 1, True)
    session.restart(raw=True)
    assert session.trace.header.prompt.tokens == tokens
    assert not session.trace.header.prompt.chat_template
    session.restart(raw=False)
    assert session.trace.header.prompt == templated


def test_a_template_that_is_not_there_is_refused(directories) -> None:
    session = opened(directories[False])
    before = session.trace
    with pytest.raises(UserError, match="brings no chat template"):
        session.restart(raw=False)
    assert session.trace is before


def test_a_restart_that_is_refused_leaves_the_sampling(directories) -> None:
    session = opened(directories[False])
    reference = decoded(session)
    with pytest.raises(UserError, match="the prompt is empty"):
        session.restart(prompt=" ", sampling=SAMPLED)
    session.restart()
    assert decoded(session) == reference
    assert session.trace.header.sampling.max_new_tokens == 4


@pytest.mark.parametrize("context", ["free", "forced"])
def test_a_context_there_is_no_memory_for_leaves_the_rows(
    directories, monkeypatch: pytest.MonkeyPatch, context: Context
) -> None:
    session = opened(directories[False])
    reference = decoded(session)
    session.restart()
    session.step()
    session.step()

    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(lanes, "prove", lambda *_: Proof(frozenset(), []))
        patch.setattr(lanes, "noise_floor", lambda *_: 0.0)
        patch.setattr(Lockstep, "prefill", no_memory)
        with pytest.raises(UserError, match="out of memory while reading the prompt"):
            session.restart(context=context)
    assert decoded(session) == reference
    assert session.trace.header.context == "both"
