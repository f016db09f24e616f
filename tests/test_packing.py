"""Packed linear layers: the products of plain ones, on every family, and unpacked bit for bit."""

import pytest
import torch
from prunetui.engine import packing
from prunetui.engine.anatomy import find_anatomy
from prunetui.engine.kvcache import new_cache
from prunetui.engine.packing import PackedLinears, Products, fastest_products
from prunetui.engine.weights import WeightGroup
from torch import Tensor, nn
from transformers import PreTrainedModel

from .models import FAMILIES, make_model


@torch.inference_mode()
def logits(model: PreTrainedModel, rows: int) -> Tensor:
    """Of three tokens, then of one after the other."""
    cache = new_cache(model)
    tokens = torch.arange(6).repeat(rows, 1) + torch.arange(rows)[:, None]
    parts = (tokens[:, :3], *tokens[:, 3:].split(1, dim=1))
    return torch.cat([model(input_ids=p, past_key_values=cache).logits for p in parts], dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_products_and_then_the_weights_are_the_plain_ones(family: str) -> None:
    model = make_model(family)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    plain = {rows: logits(model, rows) for rows in (1, 2, 3)}
    packed = PackedLinears({model: 3})
    for rows, expected in plain.items():
        assert torch.allclose(logits(model, rows), expected, rtol=1e-4, atol=1e-4)
    packed.remove()
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
    assert all(torch.equal(logits(model, rows), expected) for rows, expected in plain.items())


def units(packed: PackedLinears, model: PreTrainedModel) -> list[tuple[str, ...]]:
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    return [tuple(names[m] for m in unit) for unit, _ in packed._packed if unit[0] in names]


def test_layers_that_read_the_same_input_are_one_product() -> None:
    model = make_model("qwen2", tie_word_embeddings=False)
    packed = PackedLinears({model: 2})
    layer = [("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)]
    layers = model.config.num_hidden_layers
    assert units(packed, model) == [*layer * layers, ("lm_head",)]
    packed.remove()


def test_a_model_that_is_not_on_a_cpu_is_left_alone() -> None:
    """Nor asked to read tokens that are."""
    model = make_model("llama").to("meta")
    packed = PackedLinears({model: 2})
    assert packed._packed == []
    packed.remove()


@pytest.mark.parametrize(
    ("rows", "faster", "fastest"),
    [
        (2, [], Products.PACKED),
        (2, ["plain"], Products.PLAIN),
        (2, ["doubled"], Products.DOUBLED),
        (2, ["doubled", "plain"], Products.PLAIN),
        (3, ["doubled"], Products.PACKED),
        (3, ["plain"], Products.PLAIN),
    ],
)
def test_products_are_those_that_are_plainly_faster(
    rows: int, faster: list[str], fastest: Products, monkeypatch
) -> None:
    def timed(these, those):
        outputs = [torch.cat([call() for call in calls], dim=-1) for calls in (these, those)]
        assert torch.allclose(*outputs, rtol=1e-4, atol=1e-4)
        return ("plain" if these[0].func.__name__ == "forward" else "doubled") in faster

    monkeypatch.setattr(packing, "plainly_faster", timed)
    assert fastest_products({make_model("llama"): rows}) == fastest


def test_two_rows_as_four_are_the_same_products() -> None:
    model = make_model("llama")
    expected = logits(model, 2)
    packed = PackedLinears({model: 2}, Products.DOUBLED)
    assert torch.allclose(logits(model, 2), expected, rtol=1e-4, atol=1e-4)
    linear = model.get_submodule("model.layers.0.mlp.down_proj")
    seen = []
    multiply = linear.forward.__self__._multiply
    linear.forward.__self__._multiply = lambda x, *args: seen.append(len(x)) or multiply(x, *args)
    logits(model, 2)
    assert seen == [2, 4, 4, 4]  # two tokens a row at first
    packed.remove()


def test_of_a_product_some_layers_may_have_a_bias() -> None:
    model = make_model("llama")
    key = model.get_submodule("model.layers.0.self_attn.k_proj")
    key.bias = nn.Parameter(torch.linspace(-1, 1, len(key.weight)), requires_grad=False)
    expected = logits(model, 3)
    packed = PackedLinears({model: 3})
    assert ("q_proj", "k_proj", "v_proj") in units(packed, model)
    assert torch.allclose(logits(model, 3), expected, rtol=1e-4, atol=1e-4)
    packed.remove()


def test_a_weight_that_two_models_share_is_packed_once() -> None:
    """Of the first layer's q, k and v the second model has a k of its own."""
    model = make_model("llama")
    group = WeightGroup(model, find_anatomy(model))
    other = group.copy().model
    own = other.get_submodule("model.layers.0.self_attn.k_proj")
    own.weight = nn.Parameter(own.weight + 1, requires_grad=False)
    expected = logits(other, 2)
    packed = PackedLinears({model: 2, other: 2})
    for of in (model, other):
        assert [u for u in units(packed, of) if "k_proj" in u][:2] == [
            ("k_proj",),
            ("q_proj", "k_proj", "v_proj"),
        ]
    by_unit = [held for _, held in packed._packed]
    assert len({id(held) for held in by_unit}) == len(by_unit) // 2 + 1
    assert torch.allclose(logits(other, 2), expected, rtol=1e-4, atol=1e-4)
    packed.remove()
    assert torch.equal(logits(other, 2), expected)
