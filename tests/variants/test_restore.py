"""Parts of a variant that are as in the baseline again."""

from pathlib import Path

import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.options import Options
from prunetui.engine.sweep.jobs import weights_of
from prunetui.engine.trace.blame import Part
from prunetui.engine.variants.builder import VariantBuilder, open_builder
from prunetui.engine.variants.export import save_checkpoint
from prunetui.engine.variants.pruning.ranking import known_drops
from prunetui.engine.variants.recipe_edits import with_drops, with_restored
from prunetui.engine.variants.recipes import parse
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..support.models import make_model, make_tokenizer, save_model_directory

TOKENS = torch.arange(1, 25)[None]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_directory(tmp_path / "tiny")


def builder(model: Path) -> VariantBuilder:
    options = Options(model=str(model), calibration_samples=3, calibration_length=24)
    return open_builder(options, lambda *_: None)


def logits(model: PreTrainedModel) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits


def perturbed(directory: Path, family: str, **config) -> Path:
    """Checkpoint of a model in which every weight, norms and biases too, is another."""
    model = make_model(family, **config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def test_dropped_sublayers_are_given_back_left_to_right(tiny: Path) -> None:
    build = builder(tiny)
    expected = {
        "drop:attn=[1,2]+restore:attn=[1]": ([2], []),
        "drop:block=[0,3]+restore:mlp=[3]+restore:attn=[0,2]": ([3], [0]),
        "drop:block=[0,3]+restore:block=[0]": ([3], [3]),
        "drop:attn=[1]+restore:attn=[1]+drop:attn=[1]": ([1], []),
        "drop:attn=4+restore:attn=[1,2,3]": ([0], []),
    }
    for text, lists in expected.items():
        lane = build.build(parse(text))
        assert lane.dropped.lists == lists, text
        assert lane.group is build.baseline
        assert lane.sparsity is None
        known = known_drops(parse(text), build.baseline_similarity())
        assert known is not None
        assert known.lists == lists


RESTORED = ("layers.1.self_attn.", "layers.1.input_layernorm.", "layers.3.mlp.")


def test_sparsified_sublayers_have_the_weights_of_the_baseline_again(
    tiny: Path, tmp_path: Path
) -> None:
    build = builder(tiny)
    pruned = build.build(parse("wanda:0.5"))
    lane = build.build(parse("wanda:0.5+restore:attn=[1]+restore:mlp=[3]"))
    baseline = dict(build.baseline.model.named_parameters())
    sparse = dict(pruned.group.model.named_parameters())
    for name, parameter in lane.group.model.named_parameters():
        assert parameter is (baseline if any(r in name for r in RESTORED) else sparse)[name], name
    stock = make_model("llama")
    state = pruned.group.model.state_dict() | {
        name: tensor
        for name, tensor in build.baseline.model.state_dict().items()
        if any(r in name for r in RESTORED)
    }
    stock.load_state_dict(state)
    assert torch.equal(logits(lane.group.model), logits(stock))
    assert not torch.equal(logits(lane.group.model), logits(pruned.group.model))
    matrices = [t for n, t in state.items() if "layers" in n and t.dim() == 2]
    zeros = sum(int((t == 0).sum()) for t in matrices) / sum(t.numel() for t in matrices)
    assert lane.sparsity is not None
    assert lane.sparsity.zeros == pytest.approx(zeros, abs=1e-12)
    save_checkpoint(lane, tiny, tmp_path / "written")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "written")
    assert torch.equal(logits(written), logits(stock))


def test_a_sparsified_and_dropped_sublayer_is_given_back_whole(tiny: Path) -> None:
    build = builder(tiny)
    lane = build.build(parse("drop:attn=[1,2]+magnitude:0.5+restore:attn=[1]"))
    assert lane.dropped.lists == ([2], [])
    query = "model.layers.1.self_attn.q_proj.weight"
    assert lane.group.model.get_parameter(query) is build.baseline.model.get_parameter(query)
    # Parts after it prune what was given back.
    again = build.build(parse("magnitude:0.5+restore:attn=[1]+magnitude:0.25"))
    assert (again.group.model.get_parameter(query) == 0).float().mean() == pytest.approx(0.25)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3_text", "mixtral"])
def test_a_checkpoint_given_back_whole_is_the_baseline(family: str, tmp_path: Path) -> None:
    build = builder(save_model_directory(tmp_path / "tiny", family))
    other = perturbed(tmp_path / "other", family)
    layers = build.build(parse(f"{other}+restore:block=[0,1,2,3]"))
    outside = build.build(parse(f"{other}+restore:outside"))
    whole = build.build(parse(f"{other}+restore:outside+restore:block=[0,1,2,3]"))
    originals = dict(build.baseline.model.named_parameters())
    for lane, restored in ((layers, True), (outside, False)):
        shared = {n for n, p in lane.group.model.named_parameters() if p is originals[n]}
        prefixes = ("model.layers.", "transformer.h.", "gpt_neox.layers.")
        assert shared == {n for n in originals if n.startswith(prefixes) is restored}
    assert all(p is originals[n] for n, p in whole.group.model.named_parameters())
    assert torch.equal(logits(whole.group.model), logits(build.baseline.model))


def test_what_cannot_be_given_back_is_a_sentence(tiny: Path, tmp_path: Path) -> None:
    build = builder(tiny)
    built_otherwise = {
        "deep": {"num_hidden_layers": 5},
        "biased": {"attention_bias": True},
        "narrow": {"intermediate_size": 40},
        "heads": {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16},
        "eps": {"rms_norm_eps": 0.001},
        "angles": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e3}},
        "tied": {"tie_word_embeddings": True},
        "gelu": {"hidden_act": "gelu"},
    }
    for name, config in built_otherwise.items():
        perturbed(tmp_path / name, "llama", **config)
    messages = {
        "restore:attn=[1]": "restore:attn=[1] gives nothing back: what it names is as in the base",
        "wanda:0.5+restore:outside": "restore:outside gives nothing back",
        "drop:attn=[1]+restore:mlp=[1]": "restore:mlp=[1] gives nothing back",
        "drop:attn=[1]+restore:attn=[4]": "restore:attn=[4] names layer 4, but the model's 4 layer",
        f"{tmp_path}/deep+restore:attn=[1]": "deep has 5 layers and the baseline 4",
        f"{tmp_path}/biased+restore:attn=[1]": "biased is not built as the baseline is (",
        f"{tmp_path}/narrow+restore:mlp=[1]": "narrow is not built as the baseline is (",
        f"{tmp_path}/heads+restore:attn=[1]": "(head_dim of model.layers.0.self_attn is 16 and no",
        f"{tmp_path}/eps+restore:attn=[1]": "input_layernorm is 0.001 and not 1e-06)",
        f"{tmp_path}/angles+restore:attn=[1]": "(inv_freq of model.rotary_emb has other numbers)",
        f"{tmp_path}/tied+restore:outside": "the head is tied to the embeddings in only one of",
        f"{tmp_path}/gelu+restore:attn=[1]": "act_fn is a GELUActivation and not a SiLUActivation)",
    }
    for text, message in messages.items():
        with pytest.raises(UserError) as error:
            build.build(parse(text))
        assert message in str(error.value)


ATTENTION, MLP = Part(sublayer="attention", layer=2), Part(sublayer="mlp", layer=2)


@pytest.mark.parametrize(
    ("before", "part", "after"),
    [
        ("few=drop:attn=8", ATTENTION, "drop:attn=8+restore:attn=[2]"),
        ("wanda:0.5+restore:attn=[3,1]", ATTENTION, "wanda:0.5+restore:attn=[1,2,3]"),
        ("wanda:0.5+restore:attn=[1]", MLP, "wanda:0.5+restore:attn=[1]+restore:mlp=[2]"),
        (
            "wanda:0.5+restore:attn=[1]+restore:mlp=[1]",
            ATTENTION,
            "wanda:0.5+restore:mlp=[1]+restore:attn=[1,2]",
        ),
        ("drop:block=8+restore:block=[2]", ATTENTION, "drop:block=8+restore:block=[2]"),
        (
            "drop:attn=4+restore:attn=[1]+wanda:0.5",
            ATTENTION,
            "drop:attn=4+restore:attn=[1]+wanda:0.5+restore:attn=[2]",
        ),
        ("org/m", Part(sublayer="outside"), "org/m+restore:outside"),
        ("org/m+restore:outside", Part(sublayer="outside"), "org/m+restore:outside"),
    ],
)
def test_a_recipe_with_a_part_given_back(before: str, part: Part, after: str) -> None:
    assert with_restored(parse(before), part) == parse(after)


@pytest.mark.parametrize(
    ("before", "attention", "after"),
    [
        # Gates alone are as the lists say.
        ("drop:attn=[1,2]+restore:attn=[1]", {2, 3}, "drop:attn=[2,3]"),
        ("drop:attn=[1]+restore:attn=[1]+wanda:0.5", set(), "wanda:0.5"),
        # Weights are given back still, but no gate that is to be closed is opened.
        (
            "drop:attn=[1]+wanda:0.5+restore:block=[1,2]",
            {1},
            "drop:attn=[1]+wanda:0.5+restore:attn=[2]+restore:mlp=[1,2]",
        ),
        (
            "drop:attn=[1]+wanda:0.5+restore:block=[1,2]",
            {3},
            "drop:attn=[3]+wanda:0.5+restore:block=[1,2]",
        ),
        ("wanda:0.5+restore:attn=[1]", {1}, "wanda:0.5+restore:attn=[1]+drop:attn=[1]"),
    ],
)
def test_drops_in_a_recipe_that_gives_back(before: str, attention: set[int], after: str) -> None:
    dropped = Dropped(frozenset(attention))
    edited = with_drops(parse(before), dropped)
    assert edited == parse(after)
    assert known_drops(edited, None) == dropped


def test_what_is_given_back_changes_only_weights_that_were_changed() -> None:
    assert weights_of(parse("drop:attn=[1]+restore:attn=[1]")) == ""
    pruned = "drop:attn=[1]+wanda:0.5"
    assert weights_of(parse(f"{pruned}+drop:mlp=[1]")) == pruned
    assert weights_of(parse(f"{pruned}+restore:attn=[1]+drop:mlp=[1]")) == (
        f"{pruned}+restore:attn=[1]"
    )
