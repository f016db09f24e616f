"""Static steps, whose position the device knows, against the steps that are told theirs."""

from typing import Any

import pytest
import torch
from prunetui.engine.decode import static_steps, steps
from prunetui.engine.decode.fixed_cache import room_of
from prunetui.engine.decode.kv_cache import supports_fixed_cache
from prunetui.engine.decode.static_llama import StaticLlamaStep
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.model.weight_group import WeightGroup
from torch import Tensor
from transformers import PreTrainedModel

from ..support.families import make_family
from ..support.lockstep import install_lockstep
from ..support.models import make_model
from ..support.pretended_graphs import pretended_capture

LANES = [Dropped(), Dropped(frozenset({1})), Dropped(mlp=frozenset({0, 2}))]
OWN = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
"""Families with a static step of their own."""
STOCK = ("gemma2", "gpt2", "gpt_neox", "mixtral", "gpt_oss", "phi3")
"""Families whose static step is their forward pass."""
PROMPT, STEPS = 12, 20


@pytest.fixture(autouse=True)
def _torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiled steps: what runs on a GPU."""
    monkeypatch.setattr(steps, "backend_for", lambda *_: None)


def lockstep_of(model: PreTrainedModel, *, static: bool) -> Any:
    group = WeightGroup(model, find_anatomy(model))
    return install_lockstep([(group, dropped) for dropped in LANES], static=static)


def static_steps_of(lockstep: Any) -> list[object]:
    """The static step of each weight group."""
    return [batch.static_step() for batch in lockstep._batches if lockstep.static]  # noqa: SLF001


def texts(positions: int) -> Tensor:
    """Tokens [lanes, positions] that differ in every lane."""
    return torch.arange(len(LANES) * positions).view(len(LANES), positions) * 7 % 199


def copied(outputs: Outputs) -> list[Tensor]:
    """Copies, as the next step overwrites the outputs."""
    return [outputs.h.clone(), outputs.z.clone(), outputs.streams.clone()]


def decoded(lockstep: Any, text: Tensor, prompt: int) -> list[list[Tensor]]:
    """Outputs after a prompt and after each token that follows it."""
    outputs = [copied(lockstep.prefill(text[:, :prompt], text.shape[1] - prompt))]
    outputs += [copied(lockstep.advance(token)) for token in text[:, prompt:].split(1, dim=1)]
    return outputs


def assert_equal(found: list[Tensor], expected: list[Tensor], atol: float = 0.0) -> None:
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=atol, equal_nan=True)


@pytest.mark.parametrize("family", [*OWN, *STOCK])
def test_outputs_are_those_of_eager_steps(family: str) -> None:
    """Beyond a sliding window, with gates, and of models that count the positions themselves."""
    model, text = make_model(family), texts(PROMPT + STEPS)
    outputs = []
    for static in (False, True):
        lockstep = lockstep_of(model, static=static)
        outputs.append(decoded(lockstep, text, PROMPT))
        if static:
            [step] = static_steps_of(lockstep)
            assert isinstance(step, StaticLlamaStep) == (family in OWN)
        lockstep.remove()
    for eager, fixed in zip(*outputs, strict=True):
        assert_equal(fixed, eager, atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_a_rewind_and_a_look_back_leave_no_trace(family: str) -> None:
    """To the bit: what comes after a position is hidden, whatever it was."""
    text = texts(PROMPT + STEPS)
    lockstep = lockstep_of(make_model(family), static=True)
    expected = decoded(lockstep, text, PROMPT)
    for back in (3, 17):
        found = lockstep.advance_from(PROMPT + back, text[:, PROMPT + back, None])
        assert_equal(copied(found), expected[back + 1])
        assert lockstep.length == PROMPT + STEPS
    for to in (12, 4):
        assert lockstep.crop(PROMPT + to)
        lockstep.advance(torch.full((len(LANES), 1), 200))
        assert lockstep.crop(PROMPT + to)
        for position in range(to, STEPS):
            found = copied(lockstep.advance(text[:, PROMPT + position, None]))
            assert_equal(found, expected[position + 1])


def test_the_caches_stay_where_they_are() -> None:
    """A second prompt that needs as much room takes the room of the first."""
    lockstep = lockstep_of(make_model("llama"), static=True)
    first = decoded(lockstep, texts(PROMPT + STEPS), PROMPT)
    buffers = [buffer.data_ptr() for layer in lockstep.caches[0].layers for buffer in layer.buffers]
    before = static_steps_of(lockstep)
    decoded(lockstep, texts(PROMPT + STEPS + 7), PROMPT + 7)
    again = decoded(lockstep, texts(PROMPT + STEPS), PROMPT)
    for ours, theirs in zip(again, first, strict=True):
        assert_equal(ours, theirs)
    assert static_steps_of(lockstep) == before
    assert buffers == [
        buffer.data_ptr() for layer in lockstep.caches[0].layers for buffer in layer.buffers
    ]
    decoded(lockstep, texts(300), 290)
    assert {layer.room for layer in lockstep.caches[0].layers} == {512}
    for layer in lockstep.caches[0].layers:
        assert layer.buffers[0].shape[2] == 512


def test_what_is_no_number_is_not_looked_back_from() -> None:
    """A mask makes a number nothing, but not what is none."""
    model = make_model("llama")
    lockstep = lockstep_of(model, static=True)
    text = texts(PROMPT + STEPS)
    expected = decoded(lockstep, text, PROMPT)
    embedding: Any = model.get_input_embeddings()
    embedding.weight[200] = torch.nan
    assert lockstep.crop(PROMPT + 10)
    for token in (200, 1, 2):
        lockstep.advance(torch.full((len(LANES), 1), token))
    assert lockstep.advance_from(PROMPT + 5, text[:, PROMPT + 5, None]) is None
    assert lockstep.crop(PROMPT + 5)
    for position in range(5, STEPS):
        found = copied(lockstep.advance(text[:, PROMPT + position, None]))
        assert_equal(found, expected[position + 1])
    # Nor does it stay where a look back was the first to read.
    assert lockstep.crop(PROMPT + 10)
    lockstep.advance_from(PROMPT + 10, torch.full((len(LANES), 1), 200))
    assert lockstep.crop(PROMPT + 5)
    found = copied(lockstep.advance(text[:, PROMPT + 5, None]))
    assert_equal(found, expected[6])


def test_a_step_is_tried_out_at_a_position_that_the_model_takes(monkeypatch) -> None:
    """GPT-2 has an embedding of each; an index beyond them would end every use of the GPU."""
    monkeypatch.setattr(static_steps, "capture", pretended_capture)
    model = make_model("gpt2")
    group = WeightGroup(model, find_anatomy(model))
    lockstep = install_lockstep([(group, Dropped())], static=True, graphs=True)
    text = texts(250)[:1]
    lockstep.prefill(text, 256)
    assert room_of(lockstep.caches[0]) == 512 > model.config.n_positions == 256
    for _ in range(6):
        lockstep.advance(text[:, :1])
        assert lockstep.refusal is None


def test_a_family_that_takes_the_room_for_the_text_has_no_static_steps() -> None:
    """GPT-Neo's local layers would look at the end of the room, far beyond the text."""
    assert supports_fixed_cache(make_family("gpt_neox"))
    assert not supports_fixed_cache(make_family("gpt_neo"))
