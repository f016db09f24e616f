"""Texts beyond the length a model was trained for, against the tokens of `generate`."""

from pathlib import Path
from typing import Any

import pytest
from prunetui.engine.decode import lockstep
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.session.blamed_texts import blame_trace
from prunetui.engine.session.session import Session, open_session
from transformers import AutoModelForCausalLM

from ..support.models import greedy_tokens, make_model, make_tokenizer
from ..support.steps import decode_all, lane_tokens

TRAINED, STEPS = 32, 16
LONGROPE = {"long_factor": [4.0] * 4, "short_factor": [1.0] * 4, "factor": 4.0}
KINDS = {
    "linear": ("llama", {"factor": 4.0}, TRAINED),
    "dynamic": ("llama", {"factor": 4.0}, TRAINED),
    "yarn": ("llama", {"factor": 4.0, "original_max_position_embeddings": TRAINED}, TRAINED),
    "llama3": (
        "llama",
        {"factor": 4.0, "original_max_position_embeddings": TRAINED}
        | {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        4 * TRAINED,
    ),
    "longrope": ("phi3", LONGROPE, 4 * TRAINED),
}


def scaled_model(kind: str, directory: Path) -> Path:
    """A model trained on 32 positions and scaled to 128."""
    family, more, length = KINDS[kind]
    rope = {"rope_type": kind, "rope_theta": 10000.0, **more}
    config: dict[str, Any] = {"max_position_embeddings": length, "rope_parameters": rope}
    if kind == "longrope":
        config["original_max_position_embeddings"] = TRAINED
        rope["original_max_position_embeddings"] = TRAINED
    make_model(family, **config).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def options_of(directory: Path, prompt: str) -> Options:
    return Options(
        model=str(directory),
        variants=("control", "drop:attn=[1]", "magnitude:0.3"),
        prompt=prompt,
        raw=True,
        max_new_tokens=STEPS,
        ignore_eos=True,
    )


def session_of(directory: Path, prompt: str) -> Session:
    return open_session(options_of(directory, prompt), None, lambda *_: None)


def tokens(session: Session) -> list[int]:
    return lane_tokens(decode_all(session))


@pytest.mark.parametrize("length", [TRAINED - 8, TRAINED + 8])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_text_beyond_what_was_trained_on(
    kind: str, length: int, tmp_path: Path, monkeypatch
) -> None:
    """Prompts that end before and after the limit and are read in parts, rewound and branched."""
    monkeypatch.setattr(lockstep, "PREFILL_CHUNK", 12)
    directory = scaled_model(kind, tmp_path / "model")
    session = session_of(directory, "x" * length)
    assert session.trace.header.model.context_length == 4 * TRAINED
    prompt = make_tokenizer()("x" * length, return_tensors="pt")["input_ids"]
    expected = greedy_tokens(AutoModelForCausalLM.from_pretrained(directory), prompt, STEPS)
    assert tokens(session) == expected
    first = [step.lanes for step in session.trace.steps]
    session.rewind(5)
    assert tokens(session) == expected
    assert [step.lanes for step in session.trace.steps] == first
    session.read(3)
    session.force(7, {0: 77})
    session.switch(0)
    session.rewind(12)
    assert tokens(session) == expected


def test_angles_that_change_are_said_where_the_text_can_reach_them(tmp_path: Path) -> None:
    """A note where cached keys keep old angles; past LongRoPE's limit the text is read again."""
    directory = scaled_model("dynamic", tmp_path / "model")
    assert session_of(directory, "x" * (TRAINED - STEPS)).trace.header.notes == []
    (note,) = session_of(directory, "x" * (TRAINED - STEPS + 1)).trace.header.notes
    assert note.startswith("model's rotary angles change after 32 tokens, which the prompt and")
    other = scaled_model("longrope", tmp_path / "other")
    assert session_of(other, "x" * TRAINED).trace.header.notes == []


def test_a_longer_prompt_before_leaves_nothing_behind(tmp_path: Path) -> None:
    """Stock dynamic angles would stay those of the longest text that was read."""
    directory = scaled_model("dynamic", tmp_path / "model")
    fresh = session_of(directory, "y" * 40)
    expected = tokens(fresh)
    session = session_of(directory, "x" * 90)
    tokens(session)
    session.restart(prompt="y" * 40)
    assert tokens(session) == expected
    for ours, theirs in zip(session.trace.steps, fresh.trace.steps, strict=True):
        assert (ours.lanes, ours.candidates) == (theirs.lanes, theirs.candidates)
        assert (ours.drift, ours.layers) == (theirs.drift, theirs.layers)


def test_no_text_is_blamed_at_which_angles_have_changed(tmp_path: Path) -> None:
    """Read again as one text, its first keys would have other angles than as it was decoded."""
    options = options_of(scaled_model("dynamic", tmp_path / "model"), "x" * (TRAINED - 8))
    session = open_session(options, None, lambda *_: None)
    decode_all(session)
    assert session.blame(8, 2, "baseline", "parts").parts
    changed = "rotary angles change after 32 tokens, so a step after {} cannot be read again"
    with pytest.raises(UserError, match=changed.format(33)):
        session.blame(9, 2, "baseline", "parts")
    with pytest.raises(UserError, match=changed.format(TRAINED - 8 + STEPS - 1)):
        blame_trace(session.trace, 2, "baseline", options, lambda *_: None)
