"""Generation settings of models: end tokens are followed, other settings are named in notes."""

import json
from pathlib import Path

import pytest
from prunetui.engine.model.generation import end_tokens, generation_notes
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session

from ..support.models import END, VOCABULARY, make_model, make_tokenizer, save_model_directory


def change(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | fields), "utf-8")


def notes_of(**settings: object) -> list[str]:
    model = make_model("llama")
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return generation_notes(model)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0},
        {"suppress_tokens": [], "sequence_bias": None, "remove_invalid_values": False},
        # Without sampling, `generate` does not follow them either.
        {"do_sample": False, "temperature": 0.9, "top_p": 0.6},
        {"max_length": 20, "use_cache": False, "pad_token_id": 7},
    ],
)
def test_settings_that_change_no_token_are_not_named(settings: dict[str, object]) -> None:
    assert notes_of(**settings) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 1.3),
        ("no_repeat_ngram_size", 3),
        ("suppress_tokens", [5, 6]),
        ("begin_suppress_tokens", [7]),
        ("forced_bos_token_id", 0),
        ("forced_eos_token_id", 3),
        ("num_beams", 4),
        ("min_length", 5),
        ("bad_words_ids", [[1, 2]]),
        ("sequence_bias", [[[1], 2.0]]),
        ("encoder_repetition_penalty", 1.1),
        ("stop_strings", ["x"]),
    ],
)
def test_a_setting_that_is_not_followed_is_named(name: str, value: object) -> None:
    assert notes_of(**{name: value}) == [
        f"The model's generation settings say {name} {value}; decoding here does not follow them."
    ]


def test_settings_are_named_together_and_shortened() -> None:
    (note,) = notes_of(num_beams=4, min_length=2, suppress_tokens=[*range(100)])
    assert "say num_beams 4, suppress_tokens [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1…, min" in note


def test_how_the_model_would_sample_is_named() -> None:
    assert notes_of(do_sample=True, temperature=0.6, top_p=0.9, top_k=None) == [
        "The model's generation settings sample with temperature 0.6, top_p 0.9; decoding here "
        "samples as --temperature, --top-k and --top-p say."
    ]


@pytest.mark.parametrize("value", [{"a": 1}, "0", [1, "2", {}], None, 1.5, True, -1, [999, None]])
def test_end_tokens_that_are_no_tokens_are_left_out(value: object) -> None:
    model, tokenizer = make_model("llama"), make_tokenizer()
    model.generation_config.eos_token_id = value
    numbers = {1} if value == [1, "2", {}] else {999} if value == [999, None] else set()
    assert end_tokens(model, tokenizer) == {END} | numbers


@pytest.mark.parametrize("token", ["0", VOCABULARY, {"a": 1}, 1.5])
def test_an_end_token_that_ends_nothing_is_named(token: object) -> None:
    (note,) = notes_of(eos_token_id=[END, token])
    assert f"name the end token {token!r}, which is no token of the model" in note


@pytest.mark.parametrize("value", [{"a": 1}, "0", 999, None, [0, 999], [[0]], 1.5, -1])
def test_a_session_opens_whatever_its_end_tokens_are(tmp_path: Path, value: object) -> None:
    save_model_directory(tmp_path)
    change(tmp_path / "generation_config.json", eos_token_id=value)
    options = Options(
        model=str(tmp_path),
        prompt="x",
        variants=("drop:attn=1",),
        calibration="self",
        calibration_length=8,
    )
    session = open_session(options, None, lambda *_: None)
    assert session.step().step == 0


def test_settings_that_are_not_followed_are_in_the_header(tmp_path: Path) -> None:
    """Settings of generation_config.json, and those of an old config.json."""
    save_model_directory(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    change(tmp_path / "config.json", num_beams=4)
    options = Options(model=str(tmp_path), prompt="x", variants=("control",))
    assert open_session(options, None, lambda *_: None).trace.header.notes == [
        "The model's generation settings say num_beams 4; decoding here does not follow them."
    ]
