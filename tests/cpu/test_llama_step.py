"""A step of the models of Llama's kind: the stock model's."""

import pytest
import torch
from prunetui.engine.cpu.attention import ATTENTIONS
from prunetui.engine.cpu.kernels.attention import PART
from prunetui.engine.cpu.kernels.linear import MAX_ROWS
from prunetui.engine.cpu.linears import FastLinears
from prunetui.engine.cpu.llama_step import supports_compiled_step
from prunetui.engine.decode import kv_cache as kvcache
from prunetui.engine.decode import steps
from prunetui.engine.decode.kv_cache import new_cache
from prunetui.engine.decode.llama_step import supports_llama_step
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.attention import GroupedAttention
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.model.weight_group import WeightGroup
from torch import Tensor
from transformers import PreTrainedModel

from ..support.lockstep import install_lockstep
from ..support.models import FAMILIES, make_model, moved, needs_kernels

LANES = [
    Dropped(),
    Dropped(attention=frozenset({0, 2})),
    Dropped(mlp=frozenset({0, 3})),
    Dropped(attention=frozenset({1}), mlp=frozenset({1})),
    Dropped(),
]
CONFIGS = {
    "llama": {},
    "llama with biases": {"attention_bias": True, "mlp_bias": True, "head_dim": 16},
    "llama with longer angles": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "mistral": {"sliding_window": None, "tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {},
}


WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
"""Sizes that our products take."""
AGREED = torch.arange(20, 80).view(6, len(LANES) * 2)[:, ::2, None]
"""Tokens of each lane in turn, the same whatever is computed."""


def make(name: str, dtype: torch.dtype, **changes: object) -> PreTrainedModel:
    """With norms and biases that do something."""
    model = make_model(name.split()[0], **CONFIGS[name] | changes)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return moved(model, dtype)


def decode(model: PreTrainedModel, agreed: Tensor | None = None) -> list[Outputs]:
    """Greedily, or the tokens [steps, lanes, 1] that are agreed on."""
    group = WeightGroup(model, find_anatomy(model))
    lockstep = install_lockstep([(group, gates) for gates in LANES])
    tokens = torch.arange(5, 12) * torch.arange(1, 6)[:, None]
    outputs = [lockstep.prefill(tokens)]
    for step in range(len(AGREED)):
        token = outputs[-1].z.argmax(dim=-1)[:, None] if agreed is None else agreed[step]
        outputs.append(lockstep.advance(token))
    lockstep.remove()
    return outputs


@pytest.mark.parametrize("attention_name", ATTENTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_is_the_stock_step(
    name: str, dtype: torch.dtype, attention_name: str, monkeypatch
) -> None:
    """Bit for bit, with the model's own layers."""
    model = make(name, dtype)
    attention = GroupedAttention([model], ATTENTIONS[attention_name])
    attention.install()
    assert supports_llama_step(model, new_cache(model))
    assert not supports_compiled_step(model, len(LANES))
    ours = decode(model)
    monkeypatch.setattr(steps, "supports_llama_step", lambda *_: False)
    stock = decode(model)
    attention.remove()
    for one, other in zip(ours, stock, strict=True):
        assert torch.equal(one.h, other.h)
        assert torch.equal(one.z, other.z)
        assert torch.equal(one.streams, other.streams)
    assert len({tuple(z.tolist()) for z in ours[-1].z}) == len(LANES)


@needs_kernels
@pytest.mark.parametrize("name", CONFIGS)
def test_a_program_is_the_stock_step(name: str, monkeypatch) -> None:
    model = make(name, torch.float32, **WIDE)
    assert supports_compiled_step(model, len(LANES))
    ours = decode(model)
    monkeypatch.setattr(steps, "supports_llama_step", lambda *_: False)
    for one, other in zip(ours, decode(model), strict=True):
        for tensor, stock in ((one.h, other.h), (one.z, other.z), (one.streams, other.streams)):
            assert torch.allclose(tensor, stock, rtol=1e-4, atol=1e-4 * float(stock.abs().max()))
    assert len({tuple(z.tolist()) for z in ours[-1].z}) == len(LANES)


@needs_kernels
@pytest.mark.parametrize("name", CONFIGS)
def test_a_program_in_bfloat16_is_no_farther_from_float32_than_the_stock_step(
    name: str, monkeypatch
) -> None:
    model = make(name, torch.bfloat16, **WIDE)
    ours = decode(model, AGREED)
    monkeypatch.setattr(steps, "supports_llama_step", lambda *_: False)
    stock = decode(model, AGREED)
    exact = decode(model.float(), AGREED)

    def error(outputs: list[Outputs]) -> float:
        return sum(
            float((one.streams.float() - other.streams).square().mean().sqrt())
            for one, other in zip(outputs, exact, strict=True)
        )

    assert 0 < error(ours) < 1.2 * error(stock)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_lane_of_a_program_is_the_same_alone(name: str, dtype: torch.dtype) -> None:
    """Bit for bit, from the first token on."""
    model = make(name, dtype, **WIDE)
    linears = FastLinears([model])
    linears.install()
    group = WeightGroup(model, find_anatomy(model))
    together = install_lockstep([(group, gates) for gates in LANES])
    alone = [install_lockstep([(group, gates)]) for gates in LANES]
    tokens = torch.arange(3, 3 + len(LANES))[:, None]
    outputs = together.prefill(tokens)
    each = [lane.prefill(tokens[row, None]) for row, lane in enumerate(alone)]
    for _ in range(6):
        assert torch.equal(outputs.z, torch.cat([one.z for one in each]))
        assert torch.equal(outputs.streams, torch.cat([one.streams for one in each], dim=1))
        tokens = outputs.z.argmax(dim=-1)[:, None]
        outputs = together.advance(tokens)
        each = [lane.advance(tokens[row, None]) for row, lane in enumerate(alone)]
    for lockstep in (together, *alone):
        lockstep.remove()
    linears.remove()


def test_a_program_goes_on_where_caches_were_cropped_or_the_lanes_reopened() -> None:
    model = make("qwen2", torch.float32, **WIDE)
    group = WeightGroup(model, find_anatomy(model))
    lockstep = install_lockstep([(group, gates) for gates in LANES])
    prompt = torch.arange(5, 12).repeat(len(LANES), 1)
    tokens = torch.arange(30, 33).repeat(len(LANES), 1)
    lockstep.prefill(prompt)
    first = [lockstep.advance(token) for token in tokens.split(1, dim=1)]
    assert lockstep.crop(prompt.shape[1] + 1)
    lockstep.remove()
    lockstep.install()
    again = [lockstep.advance(token) for token in tokens[:, 1:].split(1, dim=1)]
    for one, other in zip(first[1:], again, strict=True):
        assert torch.equal(one.z, other.z)
    lockstep.remove()


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_what_lanes_hold_in_common_is_read_once_and_makes_no_difference(
    name: str, dtype: torch.dtype, monkeypatch
) -> None:
    """Bit for bit, through the same tokens and others, positions cut off and looks back."""
    model = make(name, dtype, **WIDE)
    group = WeightGroup(model, find_anatomy(model))
    rows = len(LANES)
    prompt = (torch.arange(2 * PART + 30) % 200).repeat(rows, 1)
    same, other = torch.full((rows, 1), 7), torch.arange(rows)[:, None] + 50

    def decode() -> tuple[list[Outputs], list[int]]:
        lockstep = install_lockstep([(group, gates) for gates in LANES])
        outputs, read = [lockstep.prefill(prompt)], []
        for crop, tokens in (
            *[(0, same)] * PART,
            *[(0, other)] * 3,
            (40, same),
            (0, other),
            (PART, other),
            *[(0, same)] * PART,
        ):
            assert lockstep.crop(lockstep.length - crop)
            outputs.append(lockstep.advance(tokens))
            read.append(lockstep.cache_bytes)
            looked = lockstep.advance_from(PART + 20, prompt[:, PART + 20, None])
            assert looked
            outputs.append(looked)
        lockstep.remove()
        return outputs, read

    shared, read = decode()
    nothing = torch.zeros(rows, 1 + 2, dtype=torch.int64)
    monkeypatch.setattr(kvcache, "find_shared_prefix", lambda *_: nothing.clone())
    apart, read_apart = decode()
    for one, another in zip(shared, apart, strict=True):
        assert torch.equal(one.z, another.z)
        assert torch.equal(one.streams, another.streams)
    # Layer by layer, rows that read all for themselves, and those that have it from another: of
    # rows that drop an attention 4, 3, 4, 5 attend; keys are the same up to a row's first gate.
    position = 2 * 2 * 32 * dtype.itemsize
    length = prompt.shape[1] + 1
    assert read_apart[0] == position * length * (4 + 4 + 4 + 5)
    assert read[0] == position * length * (1 + 3 + 3 + 4)
    # Nor do looks back change that.
    assert read[PART - 1] == position * (length + PART - 1) * (1 + 3 + 3 + 4)


@needs_kernels
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu"},
        {"intermediate_size": 100},
        {"head_dim": 48},
    ],
)
def test_a_model_that_no_program_is_made_for(changes: dict[str, object]) -> None:
    model = make("llama", torch.float32, **WIDE | changes)
    assert supports_llama_step(model, new_cache(model))
    assert not supports_compiled_step(model, 2)
    wide = make("llama", torch.float32, **WIDE)
    assert supports_compiled_step(wide, MAX_ROWS)
    assert not supports_compiled_step(wide, MAX_ROWS + 1)
    assert not supports_compiled_step(wide.half(), 2)
    assert not supports_compiled_step(moved(wide, "meta"), 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_models_are_left_to_themselves(family: str) -> None:
    model = make_model(family)
    expected = family in {"llama", "mistral", "qwen2", "qwen3"}
    # Mistral's default is a sliding window.
    expected &= getattr(model.config, "sliding_window", None) is None
    assert supports_llama_step(model, new_cache(model)) == expected
    model.set_attn_implementation("eager")
    assert not supports_llama_step(model, new_cache(model))
