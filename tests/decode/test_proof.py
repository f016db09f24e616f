"""What is decoded is the model: the lockstep against stock transformers, at load."""

from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.decode import kv_cache as kvcache
from prunetui.engine.decode import llama_step as llama
from prunetui.engine.decode import prepared_lanes, proof, steps
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.decode.proof import difference, lockstep_logits, prove
from prunetui.engine.errors import UserError
from prunetui.engine.model import reference
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.model.reference import PROMPT, STEPS, take_reference
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session
from transformers import PreTrainedModel

from ..support.families import make_family
from ..support.lockstep import install_lockstep
from ..support.models import (
    FAMILIES,
    greedy_tokens,
    make_model,
    make_tokenizer,
    save_model_directory,
)
from ..support.steps import decode_all, lane_tokens, present

TEXT = [*range(30, 30 + PROMPT)]
NONE, SOME = Dropped(), Dropped(frozenset({1}))


def group_of(model: PreTrainedModel) -> WeightGroup:
    return WeightGroup(model, find_anatomy(model), "it", reference=take_reference(model, TEXT))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_lockstep_gives_what_stock_transformers_gives(family: str) -> None:
    """In each row that drops nothing, beside one that does and one of other weights."""
    group, other = group_of(make_model(family)), group_of(make_model(family, seed=1))
    lanes = [(group, NONE), (group, SOME), (other, NONE), (group, NONE)]
    decoder = install_lockstep(lanes)
    assert prove(decoder, lanes) == proof.Proof(frozenset(), [])
    references = [present(lane.reference) for lane, _ in lanes]
    texts = torch.stack([taken.tokens for taken in references])
    z, positions = lockstep_logits(decoder, texts)
    assert positions == ([4, 5] if family == "lfm2" else [1, 4, 5])
    for row in (0, 2, 3):
        taken = references[row]
        assert difference(z[:, row], taken.full[positions], torch.float32) < 1e-5
        assert difference(z[-STEPS:, row], taken.generated, torch.float32) < 1e-5
    assert difference(z[:, 1], references[1].full[positions], torch.float32) > 1e-2


def test_a_reference_is_one_forward_pass_and_generate() -> None:
    """Whatever the model's own settings ask of `generate`."""
    model = make_model("llama")
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.suppress_tokens = [int(token) for token in range(100)]
    settings = model.generation_config
    taken = take_reference(model, TEXT)
    assert model.generation_config is settings
    z = model(input_ids=taken.tokens[None]).logits[0]
    assert torch.allclose(taken.full, z, atol=1e-5)
    assert taken.tokens.tolist()[:PROMPT] == TEXT
    assert taken.tokens.tolist()[PROMPT:] == z[-STEPS:-1].argmax(-1).tolist()
    assert torch.allclose(taken.generated, z[-STEPS:], atol=1e-5)


def test_a_family_whose_generate_fails_has_its_forward_pass(monkeypatch) -> None:
    model = make_model("llama")
    expected = take_reference(model, TEXT)

    def generate(*_: object, **__: object) -> None:
        raise AttributeError("seen_tokens")

    monkeypatch.setattr(model, "generate", generate)
    taken = take_reference(model, TEXT)
    assert torch.equal(taken.tokens, expected.tokens)
    assert torch.equal(taken.full, expected.full)
    assert torch.equal(taken.generated, expected.full[-STEPS:])


def test_difference_is_in_standard_deviations_of_the_logits() -> None:
    expected = torch.tensor([[0.0, 2.0, -2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert difference(expected, expected, torch.float32) == 0
    moved = expected + torch.tensor([[1.0], [0.0]])
    assert difference(moved, expected, torch.float32) == pytest.approx(1 / 2**0.5)
    assert difference(expected + 1, expected, torch.float32) == float("inf")
    # In 16 bits one position of three may be another expert's.
    three = torch.cat([expected[:1]] * 3)
    moved = three + torch.tensor([[1.0], [0.0], [0.1]])
    assert difference(moved, three, torch.bfloat16) == pytest.approx(0.1 / 2**0.5)
    nan = torch.tensor([[float("nan"), 1.0]])
    assert difference(nan, nan, torch.float32) == 0
    assert difference(nan.nan_to_num(), nan, torch.float32) == float("inf")


def test_a_family_that_keeps_a_cache_of_its_own_is_said_to_be_slow(tmp_path: Path) -> None:
    make_family("rwkv").save_pretrained(tmp_path / "rwkv")
    make_tokenizer().save_pretrained(tmp_path / "rwkv")
    session = session_of(tmp_path / "rwkv", variants=("control",))
    assert session.trace.header.notes == [
        "rwkv keeps no cache that prunetui knows, so every step reads all tokens again, which is "
        "slow."
    ]


# -- what is proven to be wrong -------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_directory(tmp_path / "tiny")


def session_of(model: Path, **changes: Any) -> Session:
    settings: dict[str, Any] = {
        "model": str(model),
        "variants": ("drop:attn=[1]",),
        "prompt": "What is it?",
        "raw": True,
        "max_new_tokens": 6,
        "ignore_eos": True,
    }
    return open_session(Options(**settings | changes), None, lambda *_: None)


def tokens(session: Session) -> list[int]:
    return lane_tokens(decode_all(session))


def generated() -> list[int]:
    prompt = make_tokenizer()("What is it?", return_tensors="pt")["input_ids"]
    return greedy_tokens(make_model("llama"), prompt, 6)


def test_a_step_of_ours_that_is_wrong_is_not_believed(tiny: Path, monkeypatch) -> None:
    """All tokens are read again each step, which is said; rewinding and branching too."""
    rotary_angles = llama.rotary_angles
    monkeypatch.setattr(steps, "backend_for", lambda *_: None)
    monkeypatch.setattr(
        llama, "rotary_angles", lambda *given: tuple(-a for a in rotary_angles(*given))
    )
    session = session_of(tiny)
    (note,) = session.trace.header.notes
    assert note.startswith("tiny gives other logits with a cache than in one forward pass (by ")
    assert note.endswith("so every step reads all tokens again, which is slow.")
    expected = generated()
    assert tokens(session) == expected
    first = [(step.lanes, step.drift, step.local) for step in session.trace.steps]
    session.rewind(2)
    assert tokens(session) == expected
    assert [(step.lanes, step.drift, step.local) for step in session.trace.steps] == first
    session.force(3, {0: 77})
    session.switch(0)
    session.rewind(4)
    assert tokens(session) == expected
    session.close()


def test_a_cache_that_is_wrong_is_not_believed(tiny: Path, monkeypatch) -> None:
    """Of families that step through their own code."""
    update = kvcache.GrowingLayer.update
    monkeypatch.setattr(steps, "supports_llama_step", lambda *_: False)
    monkeypatch.setattr(
        kvcache.GrowingLayer,
        "update",
        lambda self, keys, values, *more: update(self, keys, -values, *more),
    )
    session = session_of(tiny)
    assert "every step reads all tokens again" in session.trace.header.notes[0]
    assert tokens(session) == generated()


def test_a_model_that_no_way_decodes_is_refused(tiny: Path, monkeypatch) -> None:
    call = steps.ForwardPass.__call__

    def wrong(forward_pass: steps.ForwardPass, *arguments: Any) -> Outputs:
        outputs = call(forward_pass, *arguments)
        return Outputs(outputs.h, outputs.z.roll(1, -1), outputs.streams)

    monkeypatch.setattr(steps.ForwardPass, "__call__", wrong)
    with pytest.raises(UserError, match="tiny cannot be decoded: its logits are not those of one"):
        session_of(tiny)


@pytest.mark.parametrize("which", ["full", "generated"])
def test_what_stock_transformers_disagrees_on_is_said(which: str, tiny: Path, monkeypatch) -> None:
    taken = reference.take_reference

    def otherwise(model: PreTrainedModel, prompt: list[int]) -> reference.Reference:
        whole = taken(model, prompt)
        logits = getattr(whole, which).clone()
        logits[-STEPS:] = logits[-STEPS:].flip(-1)
        return reference.Reference(**vars(whole) | {which: logits})

    monkeypatch.setattr("prunetui.engine.model.loading.take_reference", otherwise)
    session = session_of(tiny)
    (note,) = session.trace.header.notes
    assert note.startswith(
        "tiny gives other logits with a cache, as generate of transformers reads it, than in"
        if which == "full"
        else "tiny decodes as its forward pass says; generate of transformers gives other logits"
    )
    assert tokens(session) == generated()


def test_lanes_are_proven_again_where_their_number_changes(tiny: Path, monkeypatch) -> None:
    rows: list[int] = []

    def counted(decoder: Lockstep, lanes: list[tuple[WeightGroup, Dropped]]) -> proof.Proof:
        rows.append(decoder.row_count)
        return prove(decoder, lanes)

    monkeypatch.setattr(prepared_lanes, "prove", counted)
    session = session_of(tiny, context="free")
    session.restart(context="both")
    session.set_variants(["control", "drop:mlp=[1]"])
    assert rows == [2, 3, 5]
