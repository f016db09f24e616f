"""Sibling layers' weights as one matrix: the same numbers, and no byte of weights more."""

import copy
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.model import fused_weights
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.fused_weights import fuse_weights, fused_parameters
from prunetui.engine.model.weight_group import WeightGroup, checksums, share_equal_tensors
from prunetui.engine.options import Options
from prunetui.engine.variants import export
from prunetui.engine.variants.builder import open_builder
from prunetui.engine.variants.export import save_checkpoint
from prunetui.engine.variants.recipes import parse
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..support.fake_device import fake_device, make_fake_group, needs_fake_device
from ..support.models import make_model, make_tokenizer, save_model_directory
from ..support.real_shapes import REAL_SHAPES

CONFIGS = {
    "llama": {"tie_word_embeddings": True},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "gemma3_text": {},
}
TOKENS = torch.arange(24).view(2, 12) + 5


@pytest.fixture
def _as_on_cuda(monkeypatch) -> None:
    monkeypatch.setattr(fused_weights, "is_worthwhile", lambda _: True)


as_on_cuda = pytest.mark.usefixtures("_as_on_cuda")


def make(name: str) -> PreTrainedModel:
    model = make_model(name.split()[0], **CONFIGS[name])
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model


def siblings(model: Any, layer: int) -> list[list[nn.Linear]]:
    attention, mlp = model.model.layers[layer].self_attn, model.model.layers[layer].mlp
    return [[attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]]


def which_are_fused(model: PreTrainedModel) -> list[list[bool]]:
    """For each layer, whether its attention's and its MLP's weights are."""
    return [
        [fused_parameters(linears) is not None for linears in siblings(model, layer)]
        for layer in range(model.config.num_hidden_layers)
    ]


ALL, NONE = [[True, True]] * 4, [[False, False]] * 4


def stored_bytes(models: Iterable[PreTrainedModel]) -> int:
    """Bytes of the storages of all weights, each counted once."""
    parameters = itertools.chain(*(model.parameters() for model in models))
    storages = [parameter.untyped_storage() for parameter in parameters]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def logits(model: PreTrainedModel) -> Tensor:
    with torch.inference_mode():
        return model(TOKENS).logits


@as_on_cuda
@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_is_the_same_and_takes_no_more_memory(name: str) -> None:
    model = make(name)
    before = logits(model), checksums(model), stored_bytes([model])
    parameters = dict(model.named_parameters(remove_duplicate=False))
    fuse_weights(model)
    assert which_are_fused(model) == ALL
    assert torch.equal(logits(model), before[0])
    assert (checksums(model), stored_bytes([model])) == before[1:]
    after = dict(model.named_parameters(remove_duplicate=False))
    assert [*after] == [*parameters]
    assert all(parameter is parameters[each] for each, parameter in after.items())


@as_on_cuda
@pytest.mark.parametrize("name", CONFIGS)
def test_one_product_gives_the_outputs_of_all_siblings(name: str) -> None:
    model = make(name)
    fuse_weights(model)
    for linears in siblings(model, 2):
        x = torch.randn(3, linears[0].in_features)
        fused = fused_parameters(linears)
        assert fused is not None
        expected = torch.cat([each(x) for each in linears], dim=-1)
        torch.testing.assert_close(linear(x, *fused), expected, atol=1e-5, rtol=1e-5)
        # A view: what is written into a layer's weight is read by the product.
        linears[-1].weight.data.zero_()
        assert not fused[0][-linears[-1].out_features :].any()


def test_a_model_on_the_cpu_is_left_as_it_is() -> None:
    model = make("llama")
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    fuse_weights(model)
    assert which_are_fused(model) == NONE
    assert [parameter.data_ptr() for parameter in model.parameters()] == addresses


@as_on_cuda
def test_weights_that_another_layer_reads_are_left() -> None:
    """Of the same model or of another; the rest is fused."""
    baseline: Any = make("llama with biases")
    layers = baseline.model.layers
    layers[3].self_attn.k_proj.weight = layers[1].self_attn.k_proj.weight
    layers[2].mlp.gate_proj.bias = layers[0].mlp.gate_proj.bias
    size = stored_bytes([baseline])
    fuse_weights(baseline)
    assert which_are_fused(baseline) == [[True, False], [False, True], [True, False], [False, True]]
    assert stored_bytes([baseline]) == size
    variant = WeightGroup(baseline, find_anatomy(baseline)).copy().model
    own: Any = variant
    for layer, name in ((0, "self_attn.v_proj"), (3, "mlp.gate_proj"), (3, "mlp.up_proj")):
        changed = own.model.layers[layer].get_submodule(name)
        changed.weight = nn.Parameter(changed.weight + 1, requires_grad=False)
    size = stored_bytes([baseline, variant])
    fuse_weights(variant, baseline)
    assert which_are_fused(variant) == [
        [False, False],
        [False, True],
        [True, False],
        # The weights are its own, the biases the baseline's.
        [False, True],
    ]
    assert which_are_fused(baseline)[0] == [True, False]
    assert stored_bytes([baseline, variant]) == size


@as_on_cuda
def test_layers_that_are_more_than_a_product_are_left() -> None:
    model: Any = make("llama")

    class Wrapped(nn.Linear):
        pass

    model.model.layers[0].self_attn.q_proj.__class__ = Wrapped
    up = model.model.layers[1].mlp.up_proj
    up.forward = up.forward
    fuse_weights(model)
    assert which_are_fused(model) == [[False, True], [True, False], [True, True], [True, True]]


@as_on_cuda
def test_what_memory_has_no_room_for_stays_as_it_is(monkeypatch) -> None:
    model = make("qwen2")
    expected, cat, calls = logits(model), torch.cat, itertools.count()

    def limited(tensors: list[Tensor]) -> Tensor:
        if next(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cat(tensors)

    monkeypatch.setattr(torch, "cat", limited)
    fuse_weights(model)
    monkeypatch.undo()
    # Weights and biases of an attention, weights of an MLP, weights of the next attention.
    assert which_are_fused(model) == [[True, True], *[[False, False]] * 3]
    assert torch.equal(logits(model), expected)


# -- variants -------------------------------------------------------------------------------------


def options(model: Path) -> Options:
    settings = {"calibration_samples": 2, "calibration_length": 16, "raw": True}
    return Options(model=str(model), prompt="Twelve bytes", **settings)


def build(model: Path, *recipes: str) -> list[PreTrainedModel]:
    """The baseline's model and those of the variants."""
    builder = open_builder(options(model), lambda *_: None)
    lanes = [builder.build(parse(recipe)) for recipe in recipes]
    return [builder.baseline.model, *(lane.group.model for lane in lanes)]


def shared(model: PreTrainedModel, baseline: PreTrainedModel) -> list[str]:
    """Names of the weights that are the baseline's."""
    originals = dict(baseline.named_parameters())
    return [name for name, x in model.named_parameters() if x is originals[name]]


def change(model: Path, checkpoint: Path, *names: str) -> str:
    """A checkpoint whose weights are the model's, except those of these names."""
    changed = AutoModelForCausalLM.from_pretrained(model)
    for name in names:
        changed.get_parameter(name).data.mul_(0.5)
    changed.save_pretrained(checkpoint)
    make_tokenizer().save_pretrained(checkpoint)
    return str(checkpoint)


def test_variants_fuse_what_is_their_own(tmp_path: Path, monkeypatch) -> None:
    model = save_model_directory(tmp_path / "tiny", "qwen2")
    up = ["model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight"]
    k = "model.layers.2.self_attn.k_proj.weight"
    recipes = ["magnitude:0.5", "wanda:0.5", change(model, tmp_path / "changed", k, *up)]
    recipes += [f"{recipes[2]}+wanda:0.5", "drop:attn=[1]+magnitude:0.25"]
    stock = build(model, *recipes)
    monkeypatch.setattr(fused_weights, "is_worthwhile", lambda _: True)
    models = build(model, *recipes)
    assert [shared(each, models[0]) for each in models] == [
        shared(each, stock[0]) for each in stock
    ]
    of_variants = [ALL, ALL, [*ALL[:2], [False, True], ALL[3]], ALL, ALL]
    assert [which_are_fused(each) for each in models] == [ALL, *of_variants]
    for each, other in zip(models, stock, strict=True):
        assert torch.equal(logits(each), logits(other))


def test_equal_weights_of_a_fused_baseline_are_shared(monkeypatch) -> None:
    monkeypatch.setattr(fused_weights, "is_worthwhile", lambda _: True)
    baseline, other = make("qwen2"), make("qwen2")
    size = stored_bytes([baseline])
    fuse_weights(baseline)
    share_equal_tensors(other, baseline)
    fuse_weights(other, baseline)
    assert stored_bytes([baseline, other]) == size
    assert which_are_fused(other) == ALL


@as_on_cuda
@pytest.mark.parametrize("recipe", ["wanda:0.5", "drop:attn=[1]", "drop:block=[2]+magnitude:0.5"])
def test_a_fused_variant_is_written_as_separate_weights(
    recipe: str, tmp_path: Path, monkeypatch
) -> None:
    """Those of one shard alone are copied."""
    monkeypatch.setattr(export, "SHARD", "20KB")
    model = save_model_directory(tmp_path / "tiny", "llama", tie_word_embeddings=True)
    variant = open_builder(options(model), lambda *_: None).build(parse(recipe))
    copied = 0
    clone, save_file = Tensor.clone, export.save_file
    most: list[int] = []

    def counted(tensor: Tensor, **settings: Any) -> Tensor:
        nonlocal copied
        copied += tensor.nbytes
        return clone(tensor, **settings)

    def saved(shard: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
        nonlocal copied
        most.append(copied)
        save_file(shard, file, metadata=metadata)
        assert file.stat().st_size < sum(each.nbytes for each in shard.values()) + 4096
        copied = 0

    monkeypatch.setattr(Tensor, "clone", counted)
    monkeypatch.setattr(export, "save_file", saved)
    save_checkpoint(variant, model, tmp_path / "pruned")
    assert len(most) > 2
    assert max(most) <= 20_000
    written: dict[str, Tensor] = {}
    for file in (tmp_path / "pruned").glob("*.safetensors"):
        written |= load_file(file)
    parameters = dict(variant.group.model.named_parameters())
    assert written.keys() == parameters.keys()
    dropped = {
        f"model.layers.{layer}.{kind}.weight"
        for layers, kind in zip(
            variant.dropped.lists, ("self_attn.o_proj", "mlp.down_proj"), strict=True
        )
        for layer in layers
    }
    for name, tensor in written.items():
        expected = parameters[name]
        assert torch.equal(tensor, expected * 0 if name in dropped else expected)


@needs_fake_device
@as_on_cuda
def test_a_real_models_weights_are_fused() -> None:
    config = copy.deepcopy(REAL_SHAPES["Mistral-7B-v0.3"])
    config.num_hidden_layers = 2
    with fake_device():
        model = make_fake_group(config).model
        fuse_weights(model)
        fused = [fused_parameters(linears) for linears in siblings(model, 1)]
    shapes = [each and (tuple(each[0].shape), each[1]) for each in fused]
    assert shapes == [((6144, 4096), None), ((28672, 4096), None)]
