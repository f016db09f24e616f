"""Checks of the files that users bring: every fault has a sentence, nothing is read unchecked."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.model import loading
from prunetui.engine.model.checkpoint_files import read_checkpoint_files, read_header
from prunetui.engine.model.pretrained import stored_dtype
from prunetui.engine.model.reference import Reference, take_reference
from prunetui.engine.model.weight_group import checksum, checksums
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.records import Step
from prunetui.tui.cli.prune import prune
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..support.gguf_files import write_gguf
from ..support.models import changed, make_model, make_tokenizer, save_model_directory
from ..support.steps import drift_of, lane_tokens, local_of, present

PROMPT = "What is it?"
STEPS = 4


def options(model: Path, *recipes: object) -> Options:
    return Options(
        model=str(model),
        variants=tuple(map(str, recipes)),
        prompt=PROMPT,
        raw=True,
        max_new_tokens=STEPS,
        ignore_eos=True,
        device="cpu",
    )


def decode(model: Path, *recipes: object) -> tuple[list[Step], list[str]]:
    """Decoded steps, and the notes in the trace's header."""
    session = open_session(options(model, *recipes), None, lambda *_: None)
    while session.finished is None:
        session.step()
    session.close()
    return session.trace.steps, session.trace.header.notes


def said_by(steps: list[Step]) -> list[int]:
    """The tokens of all lanes; the last digits of logits depend on the alignment of weights."""
    return [step.lanes[0].token for step in steps if step.lanes[0]]


def refused(model: Path, *recipes: object) -> str:
    with pytest.raises(UserError) as said:
        open_session(options(model, *recipes), None, lambda *_: None)
    return str(said.value)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_directory(tmp_path / "tiny")


def local_kl(baseline: Path, variant: Path, steps: list[Step]) -> list[float]:
    """KL(p ‖ q) on the baseline's tokens, from full forward passes of stock models in float64."""
    text = make_tokenizer()(PROMPT)["input_ids"] + lane_tokens(steps)
    logs = []
    for directory in (baseline, variant):
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        z = model(torch.tensor([text])).logits[0, -STEPS - 1 : -1].double()
        logs.append(z.log_softmax(-1))
    return (logs[0].exp() * (logs[0] - logs[1])).sum(-1).tolist()


# -- heads of their own ---------------------------------------------------------------------------


def test_no_model_reads_a_token_with_the_attention_of_cudnn(tiny: Path, monkeypatch) -> None:
    def spied(*arguments: Any) -> Reference:
        enabled.append(torch.backends.cuda.cudnn_sdp_enabled())
        return take_reference(*arguments)

    enabled: list[bool] = []
    monkeypatch.setattr(loading, "take_reference", spied)
    torch.backends.cuda.enable_cudnn_sdp(True)
    options = Options(model=str(tiny))
    loading.load_checkpoint(
        str(tiny), options, loading.load(options, lambda *_: None), lambda *_: None
    )
    assert enabled == [False, False]
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_head_of_its_own_stays_though_the_config_says_tied(tmp_path: Path) -> None:
    base = save_model_directory(tmp_path / "base", tie_word_embeddings=False)
    variant = changed(
        base,
        "variant",
        change=lambda key, weight: weight * 1.1 if key == "lm_head.weight" else weight,
        tie_word_embeddings=True,
    )
    steps, _ = decode(base, variant)
    measured = [present(local_of(step).kl) for step in steps]
    assert measured == pytest.approx(local_kl(base, variant, steps), rel=1e-4)
    assert 0 < max(measured) < 1


@pytest.mark.parametrize("tied", [False, True])
def test_what_was_tied_stays_tied_and_nothing_else(tied: bool, tmp_path: Path) -> None:
    """A baseline and a variant with equal embeddings, of which one is tied."""
    base = save_model_directory(tmp_path / "base", tie_word_embeddings=tied)
    variant = tmp_path / "variant"
    model = make_model("llama", tie_word_embeddings=not tied)
    name, other = "model.embed_tokens.weight", make_model("llama", tie_word_embeddings=tied)
    model.get_parameter(name).data = other.get_parameter(name).data
    model.save_pretrained(variant)
    make_tokenizer().save_pretrained(variant)
    steps, _ = decode(base, variant)
    assert [local_of(step).kl for step in steps] == pytest.approx(
        local_kl(base, variant, steps), rel=1e-4
    )


def test_weights_that_change_after_loading_are_our_own_fault(tmp_path: Path, monkeypatch) -> None:
    """The check of `unchanged_weights`, with a wrong sharing that ties weights again."""
    base = save_model_directory(tmp_path / "base", tie_word_embeddings=False)
    variant = changed(
        base,
        "variant",
        change=lambda key, weight: weight * 1.1 if key == "lm_head.weight" else weight,
        tie_word_embeddings=True,
    )
    monkeypatch.setattr(loading, "share_equal_tensors", lambda model, _: model.tie_weights())
    with pytest.raises(RuntimeError, match=r"have changed: lm_head\.weight"):
        open_session(options(base, variant), None, lambda *_: None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mixtral", "gpt_neox"])
def test_what_decodes_is_what_was_loaded(family: str, dtype: str, tmp_path: Path) -> None:
    """Checksums of every tensor after sharing, copying for another group and installing."""
    base = save_model_directory(tmp_path / "base", family, tie_word_embeddings=True)
    variant = changed(base, "variant", change=lambda key, weight: weight * (1 + ("2" in key)))
    stock = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    before = (
        checksums(stock),
        checksums(AutoModelForCausalLM.from_pretrained(variant, dtype=getattr(torch, dtype))),
    )
    given = msgspec.structs.replace(options(base, variant, "magnitude:0.5"), dtype=dtype)
    session = open_session(given, None, lambda *_: None)
    session.step()
    groups = [lane.group for lane in session.lanes.models]
    decoded = [read_weights(group.model) for group in groups[:2]]
    for weights, group, sums in zip(decoded, groups[:2], before, strict=True):
        assert {name: checksum(weight) for name, weight in weights.items()} == sums, group.name
    session.close()
    assert tuple(checksums(group.model) for group in groups[:2]) == before


def read_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """All weights as modules read them, unpacked where they are packed."""
    weights = {}
    for path, module in model.named_modules():
        for name in [*module._parameters, *module._buffers]:
            if (tensor := getattr(module, name)) is not None:
                weights[f"{path}.{name}".removeprefix(".")] = tensor
    return weights


# -- names and numbers of weights -----------------------------------------------------------------


def test_a_config_that_forgets_a_layer_is_refused(tiny: Path) -> None:
    short = changed(tiny, "short", num_hidden_layers=3)
    expected = (
        "short has 9 weights (model.layers.3.input_layernorm.weight, …) that its model has no "
        "place for; config.json says 3 layers and they are of layers 3: correct "
        "num_hidden_layers, or remove those weights"
    )
    assert refused(short) == expected
    assert expected in refused(tiny, short)


def test_layers_that_were_not_numbered_again_are_refused(tiny: Path) -> None:
    gap = changed(
        tiny, "gap", rename=lambda key: None if "layers.2." in key else key, num_hidden_layers=3
    )
    assert refused(gap) == (
        "gap is not whole: 9 weights (model.layers.2.input_layernorm.weight, …) are missing; "
        "layers 2 have none and the files have layers 3, so the layers that were left were not "
        "numbered again: rename them to run from 0"
    )


@pytest.mark.parametrize(
    ("prefix", "said"),
    [("_orig_mod.", "_orig_mod."), ("module.", "module."), ("module._orig_mod.", "_orig_mod.")],
)
def test_prefixes_of_wrappers_are_read_over_and_said(prefix: str, said: str, tiny: Path) -> None:
    wrapped = changed(tiny, "wrapped", rename=lambda key: prefix + key)
    steps, notes = decode(wrapped)
    assert f"the names of wrapped's weights have the prefix {said} of a wrapper" in notes[0]
    expected, no_notes = decode(tiny)
    assert no_notes == []
    assert said_by(steps) == said_by(expected)
    # What is pruned of it is for stock transformers, which does not.
    prune(options(wrapped, "drop:mlp=[1]"), wrapped.with_name("pruned"), "transformers")
    assert read_header(wrapped.with_name("pruned") / "model.safetensors").keys() == (
        read_header(tiny / "model.safetensors").keys()
    )


def test_weights_without_the_base_models_prefix_are_the_same(tiny: Path) -> None:
    bare = changed(tiny, "bare", rename=lambda key: key.removeprefix("model."))
    steps, notes = decode(tiny, bare)
    assert notes == []
    assert [drift_of(step).kl for step in steps] == pytest.approx([0] * STEPS, abs=1e-10)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("layers.1.self_attn.q_proj.bias",), "its config.json is another model's"),
        (("layers.1.self_attn.q_proj.lora_A.weight",), "they are those of a LoRA adapter; merge"),
        (("layers.1.mlp.up_proj.qweight",), "they are quantized, and config.json does not say how"),
    ],
)
def test_weights_of_a_layer_that_have_no_place_are_refused(
    names: tuple[str, ...], said: str, tiny: Path
) -> None:
    extra = changed(tiny, "extra")
    weights = load_file(extra / "model.safetensors")
    weights |= {f"model.{name}": torch.ones(2) for name in names}
    save_file(weights, extra / "model.safetensors", {"format": "pt"})
    assert said in refused(extra)


def test_pruning_that_was_not_made_permanent_is_named(tiny: Path) -> None:
    masked = changed(tiny, "masked")
    weights = load_file(masked / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[f"{name}_orig"] = weights.pop(name)
    weights[f"{name}_mask"] = weights[f"{name}_orig"].clone()
    save_file(weights, masked / "model.safetensors", {"format": "pt"})
    assert "(model.layers.1.mlp.up_proj.weight) is missing; torch.nn.utils.prune" in refused(masked)


def test_other_weights_without_a_place_are_named_in_the_header(tiny: Path) -> None:
    extra = changed(tiny, "extra")
    weights = load_file(extra / "model.safetensors") | {"v_head.summary.weight": torch.ones(2)}
    save_file(weights, extra / "model.safetensors", {"format": "pt"})
    note = "extra has 1 weight (v_head.summary.weight) that its model has no place for; they are"
    assert [n[: len(note)] for n in decode(extra)[1]] == [note]
    # Of a variant too.
    assert [n[: len(note)] for n in decode(tiny, extra)[1]] == [note]


def test_a_layer_of_another_width_is_named_with_its_file_and_shapes(tiny: Path) -> None:
    narrow = changed(
        tiny,
        "narrow",
        change=lambda key, weight: weight[:40] if "layers.1.mlp.up_proj" in key else weight,
    )
    assert refused(narrow) == (
        "narrow does not fit its config.json: model.layers.1.mlp.up_proj.weight in "
        "model.safetensors is [40, 32], and the model's is [48, 32]; transformers builds every "
        "layer of its family alike"
    )


# -- files ----------------------------------------------------------------------------------------


def test_shards_that_are_cut_short_missing_or_pointers_are_named(tmp_path: Path) -> None:
    directory = tmp_path / "sharded"
    make_model("llama").save_pretrained(directory, max_shard_size="40KB")
    make_tokenizer().save_pretrained(directory)
    shard = sorted(directory.glob("model-*"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert f"{shard} is cut short: it has {len(whole) // 2} bytes" in refused(directory)
    shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    assert f"{shard} is a Git LFS pointer, not the weights" in refused(directory)
    shard.unlink()
    assert f"cannot read {shard}: No such file or directory" in refused(directory)
    shard.write_bytes(whole)
    index = directory / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    said["weight_map"]["model.layers.9.x"] = shard.name
    index.write_text(json.dumps(said))
    assert f"names 1 weight (model.layers.9.x) that {shard.name} does not hold" in refused(
        directory
    )
    said["weight_map"]["model.layers.9.x"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(said))
    assert "its weight_map does not name safetensors files" in refused(directory)
    index.unlink()
    assert "but no model.safetensors.index.json" in refused(directory)


def test_the_file_that_is_read_of_two_is_said(tiny: Path) -> None:
    (tiny / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    _, notes = decode(tiny)
    assert "the former is read, the files that the latter names are not" in notes[0]


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_never_ignored(alone: bool, tiny: Path) -> None:
    adapter = tiny.with_name("adapter")
    if alone:
        adapter.mkdir()
    else:
        shutil.copytree(tiny, adapter)
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "the/base"}')
    said = "adapter is a LoRA adapter of the/base; merge it first"
    assert refused(adapter).startswith(said)
    assert said in refused(tiny, adapter)


@pytest.mark.parametrize("layers", [10**5, 10**9])
def test_a_config_of_too_many_layers_is_refused_before_it_is_built(
    layers: int, tiny: Path, monkeypatch
) -> None:
    many = changed(tiny, "many", num_hidden_layers=layers)
    monkeypatch.setattr("prunetui.engine.model.pretrained.AutoModelForCausalLM", None)
    assert f"says num_hidden_layers {layers}, and its files hold 39 weights" in refused(many)


@pytest.mark.parametrize("layers", [0, -1, "four", None])
def test_a_config_of_no_layers_is_refused(layers: object, tiny: Path) -> None:
    assert "config.json" in refused(changed(tiny, "none", num_hidden_layers=layers))


def test_a_kind_that_writes_no_text_is_named(tiny: Path) -> None:
    assert "is of the kind vit, of which transformers has no causal language model" in refused(
        changed(tiny, "sees", model_type="vit")
    )


def test_layer_types_of_the_parent_are_named(tmp_path: Path) -> None:
    directory = save_model_directory(tmp_path / "qwen3", "qwen3")
    stale = changed(
        directory,
        "stale",
        rename=lambda key: None if "layers.3." in key else key,
        num_hidden_layers=3,
    )
    said = refused(stale)
    assert "`num_hidden_layers` (3) must be equal to the number of `layer_types` (4)" in said
    assert said.endswith("remove the entries of the layers that were dropped from layer_types")


def test_an_attention_that_is_not_installed_runs_with_sdpa_and_says_so(tiny: Path) -> None:
    flash = changed(tiny, "flash", attn_implementation="flash_attention_2")
    steps, notes = decode(flash)
    assert "asks for the attention flash_attention_2, which cannot be used here" in notes[0]
    assert notes[0].endswith("it runs with sdpa.")
    assert said_by(steps) == said_by(decode(tiny)[0])


@pytest.mark.parametrize("which", ["-m", "-v"])
def test_code_is_run_for_whoever_trusts_it(which: str, tiny: Path) -> None:
    own = changed(
        tiny,
        "own",
        model_type="own",
        auto_map={
            "AutoConfig": "own_code.OwnConfig",
            "AutoModelForCausalLM": "own_code.OwnForCausalLM",
        },
    )
    (own / "own_code.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    given = options(own) if which == "-m" else options(tiny, own)
    with pytest.raises(UserError, match="--trust-remote-code runs the Python code that it brings"):
        open_session(given, None, lambda *_: None)
    trusted = msgspec.structs.replace(given, trust_remote_code=True)
    session = open_session(trusted, None, lambda *_: None)
    step = session.step()
    if which == "-v":
        assert drift_of(step).kl == pytest.approx(0, abs=1e-10)


# -- GGUF -----------------------------------------------------------------------------------------


def test_a_whole_gguf_file_decodes(tmp_path: Path) -> None:
    steps, notes = decode(write_gguf(tmp_path / "whole.gguf"), "control")
    assert notes == []
    assert [drift_of(step).kl for step in steps] == pytest.approx([0] * STEPS, abs=1e-10)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("blk.2.ffn_down.weight", "model.layers.2.mlp.down_proj.weight"),
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("token_embd.weight", "model.embed_tokens.weight"),
    ],
)
def test_a_gguf_file_with_a_hole_is_refused_each_time(
    missing: str, named: str, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "hole.gguf", lambda name: name != missing)
    for _ in range(2):
        assert refused(file) == f"hole.gguf is not whole: 1 weight ({named}) is missing"


def test_a_gguf_file_in_shards_is_refused(tmp_path: Path) -> None:
    def is_late(name: str) -> bool:
        return name.startswith(("blk.2.", "blk.3.", "output"))

    first = write_gguf(
        tmp_path / "a-00001-of-00002.gguf", lambda name: not is_late(name), shard=(0, 2)
    )
    write_gguf(tmp_path / "a-00002-of-00002.gguf", is_late, shard=(1, 2))
    for _ in range(2):
        assert refused(first) == (
            "a-00001-of-00002.gguf is one of 2 shards; join them with `llama-gguf-split --merge` "
            "and name the one file"
        )


def test_a_gguf_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "short.gguf")
    whole = file.read_bytes()
    for size in (len(whole) // 2, 400):
        file.write_bytes(whole[:size])
        assert refused(file).startswith("short.gguf cannot be read as GGUF (")


# -- dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", [None, "float32", "float16"])
def test_each_tensor_keeps_the_dtype_of_its_own_file(says: str | None, tiny: Path) -> None:
    def half(key: str, weight: Tensor) -> Tensor:
        # Norms in float32; and weights that are infinite in float16.
        large = 1e6 if "layers.1.mlp.down" in key else 1
        return weight if "norm" in key else (weight * large).bfloat16()

    mixed = changed(tiny, "mixed", change=half, dtype=says)
    prune(options(mixed, "drop:mlp=[0]"), tiny.with_name("pruned"), "transformers")
    before = load_file(mixed / "model.safetensors")
    after = load_file(tiny.with_name("pruned") / "model.safetensors")
    assert after.keys() == before.keys()
    for name, weight in after.items():
        assert weight.dtype == before[name].dtype
        dropped = name == "model.layers.0.mlp.down_proj.weight"
        assert torch.equal(weight, torch.zeros_like(weight) if dropped else before[name])
    config = json.loads((tiny.with_name("pruned") / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_a_gpu_decodes_in_the_dtype_of_the_weights(tiny: Path) -> None:
    """The dtype of most weights; for quantized ones no dtype, as their config says it."""
    half = changed(tiny, "half", change=lambda _, weight: weight.bfloat16(), dtype="float16")
    assert stored_dtype(read_checkpoint_files(half, "half")) == torch.bfloat16
    quantized = changed(tiny, "quantized", quantization_config={"quant_method": "fp8"})
    assert stored_dtype(read_checkpoint_files(quantized, "quantized")) is None


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_decodes_a_gguf_file_in_16_bits(native: bool, tmp_path: Path, monkeypatch) -> None:
    """No weight reaches the GPU in the float32 of the converted file."""
    gguf = write_gguf(tmp_path / "whole.gguf")
    asked: list[tuple[object, object]] = []
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained

    def load_on_cpu(*given: Any, device_map: object = None, **others: Any) -> Any:
        if "gguf_file" not in others:
            asked.append((device_map, others["dtype"]))
        return from_pretrained(*given, **others)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load_on_cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # Torch counts what it emulates, unless it is told not to.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    given = options(gguf)
    loading.load(given, lambda *_: None)
    for dtype in ("auto", "float32"):
        given = msgspec.structs.replace(given, device="auto", dtype=dtype)
        loading.load(given, lambda *_: None)
    cuda = {"": torch.device("cuda")}
    half = torch.bfloat16 if native else torch.float16
    assert asked == [(None, torch.float32), (cuda, half), (cuda, torch.float32)]


def test_what_cannot_be_written_by_a_library_is_copied(tiny: Path) -> None:
    """Settings that transformers reads and refuses to write are copied as they are."""
    left = changed(tiny, "left", output_attentions=True, output_hidden_states=True, num_beams=4)
    (left / "generation_config.json").write_text('{"temperature": 0.5, "do_sample": false}')
    pruned = tiny.with_name("pruned")
    prune(options(left, "drop:mlp=[0]"), pruned, "transformers")
    assert (pruned / "generation_config.json").read_text() == (
        left / "generation_config.json"
    ).read_text()
    assert (pruned / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()
