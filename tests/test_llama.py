"""A step of the models of Llama's kind: the stock model's, bit for bit."""

import gc
import weakref

import pytest
import torch
from prunetui.engine import lockstep as module
from prunetui.engine.anatomy import find_anatomy
from prunetui.engine.attention import ATTENTIONS, FastAttention
from prunetui.engine.kvcache import new_cache
from prunetui.engine.llama import is_of_llamas_kind
from prunetui.engine.lockstep import LaneGates, Lockstep, Outputs
from prunetui.engine.packing import PackedLinears
from prunetui.engine.weights import WeightGroup
from transformers import PreTrainedModel

from .models import FAMILIES, make_model

LANES = [
    LaneGates(),
    LaneGates(attention=frozenset({0, 2})),
    LaneGates(mlp=frozenset({0, 3})),
    LaneGates(attention=frozenset({1}), mlp=frozenset({1})),
    LaneGates(),
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


def make(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """With norms and biases that do something."""
    model = make_model(name.split()[0], **CONFIGS[name])
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model.to(dtype)


def decode(model: PreTrainedModel, steps: int = 6) -> list[Outputs]:
    group = WeightGroup(model, find_anatomy(model))
    lockstep = Lockstep([(group, gates) for gates in LANES])
    tokens = torch.arange(5, 12) * torch.arange(1, 6)[:, None]
    outputs = [lockstep.prefill(tokens)]
    for _ in range(steps):
        outputs.append(lockstep.advance(outputs[-1].z.argmax(dim=-1)[:, None]))
    lockstep.close()
    return outputs


@pytest.mark.parametrize("attention_name", ATTENTIONS)
@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_is_the_stock_step(
    name: str, dtype: torch.dtype, packs: bool, attention_name: str, monkeypatch
) -> None:
    model = make(name, dtype)
    attention = FastAttention([model], attention_name)
    packed = PackedLinears({model: len(LANES)} if packs else {})
    assert is_of_llamas_kind(model, new_cache(model))
    ours = decode(model)
    monkeypatch.setattr(module, "is_of_llamas_kind", lambda *_: False)
    stock = decode(model)
    packed.remove()
    attention.remove()
    for one, other in zip(ours, stock, strict=True):
        assert torch.equal(one.h, other.h)
        assert torch.equal(one.z, other.z)
        assert torch.equal(one.streams, other.streams)
    assert len({tuple(z.tolist()) for z in ours[-1].z}) == len(LANES)


def test_closed_it_lets_go_of_packed_weights() -> None:
    model = make("qwen2", torch.float32)
    packed = PackedLinears({model: len(LANES)})
    held = [weakref.ref(weights) for _, weights in packed._packed]
    assert held
    group = WeightGroup(model, find_anatomy(model))
    lockstep = Lockstep([(group, gates) for gates in LANES])
    lockstep.prefill(torch.arange(3, 8).repeat(len(LANES), 1))
    lockstep.close()
    packed.remove()
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)
    # And it goes on with others.
    lockstep.reopen()
    lockstep.advance(torch.ones(len(LANES), 1, dtype=torch.int64))
    lockstep.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_other_models_are_left_to_themselves(family: str) -> None:
    model = make_model(family)
    expected = family in {"llama", "mistral", "qwen2", "qwen3"}
    # Mistral's default is a sliding window.
    expected &= getattr(model.config, "sliding_window", None) is None
    assert is_of_llamas_kind(model, new_cache(model)) == expected
    model.set_attn_implementation("eager")
    assert not is_of_llamas_kind(model, new_cache(model))
