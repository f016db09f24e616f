"""Linear layers that multiply a few rows by our products: those of plain ones, on every family."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from prunetui.engine.cpu.kernels.linear import MAX_ROWS, can_multiply
from prunetui.engine.cpu.kernels.packing import PackedWeight
from prunetui.engine.cpu.linears import FastLinears, stored_weight
from prunetui.engine.cpu.packed_weights import pack_weight, unpack_weight
from prunetui.engine.decode.bandwidth import weight_bytes
from prunetui.engine.decode.kv_cache import new_cache
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..support.models import FAMILIES, make_model, moved, needs_kernels

pytestmark = needs_kernels


@torch.inference_mode()
def logits(model: PreTrainedModel, rows: int) -> Tensor:
    """Of three tokens, then of one after the other."""
    cache = new_cache(model)
    tokens = torch.arange(6).repeat(rows, 1) + torch.arange(rows)[:, None]
    parts = (tokens[:, :3], *tokens[:, 3:].split(1, dim=1))
    return torch.cat([model(input_ids=p, past_key_values=cache).logits for p in parts], dim=1)


def replaced(model: PreTrainedModel) -> list[str]:
    """The first layer's linear layers whose products are ours."""
    return [
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if "forward" in vars(module)
        and ".1." not in name
        and ".2." not in name
        and ".3." not in name
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_products_and_then_the_model_are_the_plain_ones(family: str) -> None:
    model = make_model(family)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    plain = {rows: logits(model, rows) for rows in (1, 2, 3, MAX_ROWS + 1)}
    linears = FastLinears([model])
    linears.install()
    assert replaced(model)
    for rows, expected in plain.items():
        assert torch.allclose(logits(model, rows), expected, rtol=1e-4, atol=1e-4)
    linears.remove()
    assert not replaced(model)
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
    for rows, expected in plain.items():
        assert torch.allclose(logits(model, rows), expected, rtol=1e-5, atol=1e-5)


def test_layers_whose_weights_cannot_be_read_as_they_lie_stay_stock() -> None:
    """The MLP's down projection reads 48 numbers, which is no multiple of 32."""
    model = make_model("llama")
    linears = FastLinears([model])
    linears.install()
    assert replaced(model) == [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"),
        "lm_head",
    ]
    linears.remove()


def test_transposed_layers_are_read_in_rows() -> None:
    """GPT-2's, whose weights lie the other way round in a checkpoint."""
    model = make_model("gpt2")
    linears = FastLinears([model])
    linears.install()
    assert replaced(model) == ["c_attn", "c_proj", "c_fc", "lm_head"]
    linears.remove()


def test_more_rows_than_a_few_are_multiplied_as_torch_does() -> None:
    model = make_model("llama")
    linear = model.get_submodule("model.layers.0.self_attn.q_proj")
    x = torch.randn(MAX_ROWS + 1, 1, 32)
    stock = linear(x)
    linears = FastLinears([model])
    linears.install()
    assert torch.equal(linear(x), stock)
    assert torch.allclose(linear(x[:MAX_ROWS]), stock[:MAX_ROWS], rtol=1e-5, atol=1e-6)
    assert torch.equal(linear(x[:0]), stock[:0])
    linears.remove()


def test_a_model_that_is_not_on_a_cpu_is_left_alone() -> None:
    model = moved(make_model("llama"), "meta")
    linears = FastLinears([model])
    linears.install()
    assert replaced(model) == []
    linears.remove()


def test_a_transposed_layer_elsewhere_lies_as_it_did() -> None:
    model = moved(make_model("gpt2"), "meta")
    linears = FastLinears([model])
    linears.install()
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    linears.remove()


def test_a_layer_with_a_forward_of_its_own_keeps_it() -> None:
    """Accelerate's hooks put one there."""
    model = make_model("llama")
    hooked = model.get_submodule("model.layers.0.self_attn.q_proj")
    own = hooked.forward
    hooked.forward = own
    linears = FastLinears([model])
    linears.install()
    assert hooked.forward is own
    assert "k_proj" in replaced(model)
    linears.remove()
    assert vars(hooked)["forward"] is own


def test_two_models_may_share_a_layer_and_have_biases() -> None:
    model, other = make_model("llama"), make_model("llama")
    key = model.get_submodule("model.layers.0.self_attn.k_proj")
    assert isinstance(key, nn.Linear)
    key.bias = nn.Parameter(torch.linspace(-1, 1, len(key.weight)), requires_grad=False)
    other.model.layers[0].self_attn.k_proj = key
    expected = [logits(of, 3) for of in (model, other)]
    linears = FastLinears([model, other])
    linears.install()
    for of, plain in zip((model, other), expected, strict=True):
        assert torch.allclose(logits(of, 3), plain, rtol=1e-4, atol=1e-4)
    linears.remove()
    assert replaced(model) == replaced(other) == []


def rounded(model: PreTrainedModel) -> PreTrainedModel:
    """Weights that are bfloat16's, as those of most checkpoints."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_fewer_bytes_hold_are_kept_in_those(family: str) -> None:
    model = rounded(make_model(family))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    wide, plain = weight_bytes([model]), {rows: logits(model, rows) for rows in (2, MAX_ROWS + 1)}
    linears = FastLinears([model])
    linears.install()
    assert weight_bytes([model]) < wide
    for rows, expected in plain.items():
        assert torch.allclose(logits(model, rows), expected, rtol=1e-4, atol=1e-4)
    linears.remove()
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
    assert weight_bytes([model]) == wide


def test_half_of_what_bfloat16s_took_is_read_and_nothing_else_is_held() -> None:
    model = rounded(make_model("llama"))
    halved = [m for m in model.modules() if isinstance(m, nn.Linear) and can_multiply(m.weight)]
    wide, saved = weight_bytes([model]), sum(linear.weight.nbytes for linear in halved) / 2
    linears = FastLinears([model])
    linears.install()
    assert weight_bytes([model]) == wide - saved
    assert [dict(linear.named_parameters())["weight"].numel() for linear in halved] == [0] * len(
        halved
    )
    linears.remove()
    assert weight_bytes([model]) == wide


def test_a_weight_that_is_looked_up_too_stays_where_it_is() -> None:
    model = rounded(make_model("llama", tie_word_embeddings=True))
    embedding = model.get_parameter("model.embed_tokens.weight")
    linears = FastLinears([model])
    linears.install()
    assert isinstance(stored_weight(model.lm_head), PackedWeight)
    assert model.lm_head.weight is embedding
    assert embedding.numel()
    linears.remove()


def test_a_weight_that_two_layers_have_is_kept_once() -> None:
    model = rounded(make_model("llama"))
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    second.k_proj.weight = first.k_proj.weight
    expected = logits(model, 2)
    weight = first.k_proj.weight.clone()
    linears = FastLinears([model])
    linears.install()
    assert stored_weight(first.k_proj) is stored_weight(second.k_proj)
    assert torch.equal(second.k_proj.weight, weight)
    assert torch.allclose(logits(model, 2), expected, rtol=1e-4, atol=1e-4)
    linears.remove()
    assert second.k_proj.weight is first.k_proj.weight
    assert torch.equal(first.k_proj.weight, weight)


def test_no_memory_for_a_narrow_weight_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = rounded(make_model("llama"))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    left = iter(range(3))
    packed: weakref.WeakSet[PackedWeight] = weakref.WeakSet()
    alive: list[int] = []

    def pack_thrice(weight: Tensor) -> Tensor | PackedWeight:
        if next(left, None) is None:
            raise MemoryError
        result = pack_weight(weight)
        assert isinstance(result, PackedWeight)
        packed.add(result)
        return result

    def unpack(weight: PackedWeight) -> Tensor:
        alive.append(len(packed))
        return unpack_weight(weight)

    monkeypatch.setattr("prunetui.engine.cpu.linears.pack_weight", pack_thrice)
    monkeypatch.setattr("prunetui.engine.cpu.linears.unpack_weight", unpack)
    with pytest.raises(MemoryError):
        FastLinears([model]).install()
    # Each is freed before the next is unpacked.
    assert alive == [3, 2, 1]
    assert replaced(model) == []
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())


def test_a_file_of_which_little_is_left_is_let_go(tmp_path: Path) -> None:
    """Its biases and its embedding would keep all of it in memory."""
    rounded(make_model("qwen2")).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()

    def mapped() -> list[bool]:
        return [not p.untyped_storage().resizable() for p in model.parameters()]

    assert all(mapped())
    expected = logits(model, 2)
    linears = FastLinears([model])
    linears.install()
    assert not any(mapped())
    assert torch.allclose(logits(model, 2), expected, rtol=1e-4, atol=1e-4)
    linears.remove()


def test_no_memory_for_wide_weights_leaves_layers_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And either way on works."""
    model = rounded(make_model("llama"))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = logits(model, 2)
    linears = FastLinears([model])
    for go_on in (linears.install, linears.remove, FastLinears([model]).install):
        linears.install()
        left = iter(range(3))

        def unpack_thrice(narrow: PackedWeight, left: Iterator[int] = left) -> Tensor:
            if next(left, None) is None:
                raise MemoryError
            return unpack_weight(narrow)

        with monkeypatch.context() as patch:
            patch.setattr("prunetui.engine.cpu.linears.unpack_weight", unpack_thrice)
            with pytest.raises(MemoryError):
                linears.remove()
        assert torch.allclose(logits(model, 2), expected, rtol=1e-4, atol=1e-4)
        go_on()
        assert torch.allclose(logits(model, 2), expected, rtol=1e-4, atol=1e-4)
    linears.remove()
    assert replaced(model) == []
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
