"""Variants of tiny models: what each recipe drops and changes, and what it decodes."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prunetui.engine.decode import prepared_lanes as lanes
from prunetui.engine.errors import UserError
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.records import Step
from prunetui.engine.variants import export
from prunetui.engine.variants.builder import LaneModel, VariantBuilder, open_builder
from prunetui.engine.variants.export import mergekit_yaml, save_checkpoint
from prunetui.engine.variants.pruning.layerwise import sparsify_model
from prunetui.engine.variants.recipes import Sparsify, parse
from prunetui.tui.cli.prune import prune
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..support.models import (
    FAMILIES,
    greedy_tokens,
    make_model,
    make_tokenizer,
    moved,
    save_model_directory,
    zero_output,
)
from ..support.steps import drift_of, lane_tokens, present

DEPTH = 4
STEPS = 8


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_directory(tmp_path / "tiny")


def options(model: Path, *variants: str, **others) -> Options:
    settings = {"calibration_samples": 3, "calibration_length": 24, "prompt": "Twelve bytes"}
    settings |= {"max_new_tokens": STEPS, "ignore_eos": True, "raw": True}
    return Options(model=str(model), variants=variants, **(settings | others))


def builder(model: Path, **others) -> VariantBuilder:
    return open_builder(options(model, **others), lambda *_: None)


def dropped(lane: LaneModel) -> tuple[list[int], list[int]]:
    return lane.dropped.lists


def decode(session: Session) -> list[Step]:
    while session.finished is None:
        session.step()
    session.close()
    return session.trace.steps


def generate(model: PreTrainedModel) -> list[int]:
    prompt = make_tokenizer()("Twelve bytes", return_tensors="pt")["input_ids"]
    return greedy_tokens(model, prompt, STEPS)


# -- what is dropped ------------------------------------------------------------------------------


def best(values: list[float], count: int) -> list[int]:
    return sorted(sorted(range(len(values)), key=lambda layer: -values[layer])[:count])


def test_counts_take_what_changes_the_stream_least(tiny: Path) -> None:
    build = builder(tiny)
    similarity = build.baseline_similarity()
    attn, mlp, runs = similarity.attention, similarity.mlp, similarity.runs
    assert dropped(build.build(parse("drop:attn=2"))) == (best(attn, 2), [])
    assert dropped(build.build(parse("drop:mlp=1"))) == ([], best(mlp, 1))
    joint = best(attn + mlp, 3)
    expected = ([p for p in joint if p < DEPTH], [p - DEPTH for p in joint if p >= DEPTH])
    assert dropped(build.build(parse("drop:joint=3"))) == expected
    assert dropped(build.build(parse("drop:block=2"))) == (best(runs[0], 2),) * 2
    (first,) = best(runs[1], 1)
    run = [first, first + 1]
    assert dropped(build.build(parse("drop:block=2,consecutive"))) == (run, run)
    assert dropped(build.build(parse("drop:block=[3]"))) == ([3], [3])


def test_parts_apply_left_to_right_to_what_is_left(tiny: Path) -> None:
    build = builder(tiny)
    attn = build.baseline_similarity().attention
    first, second = sorted(range(DEPTH), key=lambda layer: -attn[layer])[:2]
    made = build.build(parse(f"drop:attn=[{first}]+drop:mlp=[0]"))
    assert dropped(made) == ([first], [0])
    assert dropped(build.build(parse("drop:attn=1+drop:attn=[0]")))[0] == sorted({first, 0})
    assert len(dropped(build.build(parse("drop:attn=1+drop:attn=1")))[0]) == 2
    assert {first, second} <= set(dropped(build.build(parse("drop:attn=2")))[0])


@pytest.mark.parametrize("kind", ["attn", "mlp", "joint", "block"])
def test_iterative_measures_again_after_each(tiny: Path, kind: str) -> None:
    """Iterative drops equal drops by hand, each measured on the model without the earlier ones."""
    build = builder(tiny)
    iterative = dropped(build.build(parse(f"drop:{kind}=2,iterative")))
    first = dropped(build.build(parse(f"drop:{kind}=1")))
    lists = [
        f"drop:{k}=[{','.join(map(str, d))}]"
        for k, d in zip(("attn", "mlp"), first, strict=True)
        if d
    ]
    by_hand = dropped(build.build(parse("+".join([*lists, f"drop:{kind}=1"]))))
    assert iterative == by_hand


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop:attn=5", "drops 5 attention sublayers, but there are 4 to drop"),
        ("drop:joint=9", "drops 9 sublayers, but there are 8 to drop"),
        ("drop:block=5,consecutive", "drops 5 layers, but there are 4 to drop"),
        ("drop:mlp=[0,1]+drop:mlp=3", "drops 3 MLP sublayers, but there are 2 to drop"),
        ("drop:block=[1,2]+drop:block=2,consecutive", "finds no run of 2 layers"),
        ("wanda:2:5", "5 does not divide a matrix's 32 inputs"),
    ],
)
def test_a_part_that_cannot_apply_says_which_and_why(tiny: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        builder(tiny).build(parse(text))
    assert str(error.value).startswith(f"recipe {text}: ")
    assert message in str(error.value)


# -- what is shared -------------------------------------------------------------------------------


def own_parameters(made: LaneModel, baseline: LaneModel) -> set[str]:
    shared = {id(parameter) for parameter in baseline.group.model.parameters()}
    named = made.group.model.named_parameters()
    return {name for name, parameter in named if id(parameter) not in shared}


def test_a_variant_owns_its_linears_and_nothing_else(tiny: Path) -> None:
    build = builder(tiny)
    baseline = build.build(parse("control"))
    assert baseline.group is build.build(parse("drop:attn=[0]")).group
    made = build.build(parse("wanda:0.5"))
    linears = {f"model.layers.{n}.{m}.weight" for n in range(DEPTH) for m in LLAMA_LINEARS}
    assert own_parameters(made, baseline) == linears
    assert made.sparsity is not None
    assert made.sparsity.zeros == pytest.approx(0.5, abs=0.01)
    again = build.build(parse("wanda:0.5+drop:attn=[1]"))
    assert again.group is made.group
    assert dropped(again) == ([1], [])


LLAMA_LINEARS = [f"self_attn.{p}_proj" for p in "qkvo"]
LLAMA_LINEARS += [f"mlp.{p}_proj" for p in ("gate", "up", "down")]


def test_importance_is_measured_on_the_weights_so_far(tiny: Path) -> None:
    build = builder(tiny)
    made = build.build(parse("magnitude:0.9+drop:attn=2"))
    dense = build.build(parse("magnitude:0.9")).group.model
    dense.save_pretrained(tiny.parent / "sparse")
    make_tokenizer().save_pretrained(tiny.parent / "sparse")
    alone = builder(tiny.parent / "sparse")
    assert dropped(made) == dropped(alone.build(parse("drop:attn=2")))


# -- what is decoded ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [
        *("llama", "gpt2", "gemma3_text", "mixtral"),
        *(
            pytest.param(family, marks=pytest.mark.slow)
            for family in ("gpt_neox", "qwen2_moe", "gpt_oss")
        ),
    ],
)
def test_lanes_of_several_weight_groups_decode_as_if_alone(family: str, tmp_path: Path) -> None:
    """Lanes of interleaved weight groups, sparse and dropped, decode as their checkpoints do."""
    directory = save_model_directory(tmp_path / family, family)
    recipes = [
        "wanda:0.5",
        "drop:attn=[1]",
        "sparsegpt:0.3+drop:mlp=[2]",
        "sparse=wanda:0.5+drop:mlp=[0]",
    ]
    steps = decode(session := open_session(options(directory, *recipes), None, lambda *_: None))
    names = [lane.name for lane in session.trace.header.lanes]
    assert names == ["baseline", "wanda:0.5", "drop:attn=[1]", recipes[2], "sparse"]
    assert session.trace.header.lanes[1].sparsity == pytest.approx(0.5, abs=0.02)
    assert session.trace.header.lanes[2].sparsity is None
    assert lane_tokens(steps, 0) == generate(make_model(family))
    build = builder(directory)
    for lane, recipe in enumerate(recipes, start=1):
        place = tmp_path / f"checkpoint-{lane}"
        save_checkpoint(build.build(parse(recipe)), directory, place)
        stock = AutoModelForCausalLM.from_pretrained(place)
        assert lane_tokens(steps, lane) == generate(stock), recipe


def test_a_control_lane_is_the_baseline_again(tiny: Path) -> None:
    steps = decode(open_session(options(tiny, "control"), None, lambda *_: None))
    assert lane_tokens(steps, 1) == lane_tokens(steps, 0)
    # Rows of one batch may differ in their last bits: that is the noise floor.
    for step in steps:
        assert drift_of(step).kl == pytest.approx(0, abs=1e-10)
        assert drift_of(step).cos_z == pytest.approx(1, abs=1e-10)


def test_the_noise_floor_is_that_of_the_rows_there_are(tiny: Path, monkeypatch) -> None:
    monkeypatch.setattr(lanes, "noise_floor", lambda _alone, batch, *_: float(batch.row_count))
    session = open_session(options(tiny, "drop:attn=[1]", context="free"), None, lambda *_: None)
    assert session.trace.header.noise_floor == 2
    session.restart(context="both")
    assert session.trace.header.noise_floor == 3
    session.restart(prompt="Other bytes", context="free")
    assert session.trace.header.noise_floor == 2
    session.close()


def test_a_context_that_memory_has_no_room_for_leaves_the_lanes(tiny: Path, monkeypatch) -> None:
    """A context too large for memory leaves the lanes and their gates as they were."""
    given = options(tiny, "drop:attn=[1]", context="free")
    expected = decode(open_session(given, None, lambda *_: None))
    session = open_session(given, None, lambda *_: None)
    session.step()

    def full(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(lanes, "noise_floor", full)
    with pytest.raises(UserError, match="out of memory in context both; the one before goes on"):
        session.restart(context="both")
    assert session.trace.header.context == "free"
    for ours, theirs in zip(decode(session), expected, strict=True):
        assert (ours.lanes, ours.drift) == (theirs.lanes, theirs.drift)


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_is_pruned_is_what_stock_transformers_loads(family: str, tmp_path: Path) -> None:
    directory = save_model_directory(tmp_path / family, family)
    made = builder(directory).build(parse("drop:attn=[0,3]+drop:mlp=[1]"))
    save_checkpoint(made, directory, tmp_path / "pruned")
    config = json.loads((tmp_path / "pruned" / "config.json").read_text())
    assert (config["drop_attn_list"], config["drop_mlp_list"]) == ([0, 3], [1])
    steps = decode(
        open_session(options(directory, "drop:attn=[0,3]+drop:mlp=[1]"), None, lambda *_: None)
    )
    assert lane_tokens(steps, 1) == generate(
        AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    )


def test_a_checkpoint_is_a_variant(tiny: Path, tmp_path: Path) -> None:
    """An exported checkpoint drops by its lists, shares equal tensors and decodes as its recipe."""
    build = builder(tiny)
    recipe = "wanda:2:4+drop:attn=[1,2]"
    save_checkpoint(build.build(parse(recipe)), tiny, tmp_path / "pruned")
    steps = decode(
        session := open_session(
            options(tiny, str(tmp_path / "pruned"), recipe), None, lambda *_: None
        )
    )
    lane = session.trace.header.lanes[1]
    assert (lane.dropped_attention, lane.dropped_mlp, lane.pattern) == ([1, 2], [], "2:4")
    assert lane_tokens(steps, 1) == lane_tokens(steps, 2)
    loaded = build.build(parse(str(tmp_path / "pruned")))
    own = own_parameters(loaded, build.build(parse("control")))
    assert {"model.embed_tokens.weight", "model.norm.weight"}.isdisjoint(own)
    assert "model.layers.0.mlp.up_proj.weight" in own


def test_a_checkpoint_that_changed_is_ranked_again(tiny: Path, tmp_path: Path) -> None:
    """An attention whose output is zero changes nothing, and so is least important."""
    place = tmp_path / "other"
    for layer in (1, 2, 3):
        model = make_model("llama")
        zero_output(model, layer, "attn")
        model.save_pretrained(place)
        assert dropped(builder(tiny).build(parse(f"{place}+drop:attn=1"))) == ([layer], [])


@pytest.mark.parametrize("listed", [[1, 3], [False, True, False, True]])
def test_a_checkpoint_of_llm_drop_may_lack_what_it_dropped(
    tiny: Path, tmp_path: Path, listed: list
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.config.auto_map = {"AutoModelForCausalLM": "modeling_dropped.Dropped"}
    model.config.drop_attn_list = listed
    model.config.drop_mlp_list = None
    state = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not any(f"layers.{n}.{part}" in name for n in (1, 3) for part in LLM_DROP_PARTS)
    }
    model.save_pretrained(tmp_path / "dropped", state_dict=state)
    steps = decode(
        session := open_session(
            options(tiny, str(tmp_path / "dropped"), "drop:attn=[1,3]"), None, lambda *_: None
        )
    )
    assert session.trace.header.lanes[1].dropped_attention == [1, 3]
    assert lane_tokens(steps, 1) == lane_tokens(steps, 2)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([4], r"drop_mlp_list of pruned is \[4\], but the layers are 0 to 3"),
        ([-1], "but the layers are 0 to 3"),
        (["2"], r"is \['2'\], which is no list of layers"),
        ({"2": True}, "which is no list of layers"),
        ([False, False, False, False, True], "but the layers are 0 to 3"),
    ],
)
def test_drops_of_layers_that_are_not_there_are_refused(
    tiny: Path, tmp_path: Path, listed: object, message: str
) -> None:
    place = save_model_directory(tmp_path / "pruned")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"drop_mlp_list": listed}))
    with pytest.raises(UserError, match=message):
        builder(tiny).build(parse(str(place)))


LLM_DROP_PARTS = ("self_attn", "input_layernorm")


def test_a_checkpoint_of_another_size_is_refused_with_both_sizes(
    tiny: Path, tmp_path: Path
) -> None:
    other = save_model_directory(tmp_path / "other", hidden_size=64)
    with pytest.raises(UserError, match="hidden size is 64, the baseline's 32"):
        builder(tiny).build(parse(str(other)))
    other = save_model_directory(tmp_path / "words", vocab_size=300)
    with pytest.raises(UserError, match="vocabulary is 300, the baseline's 257"):
        builder(tiny).build(parse(str(other)))


def test_a_checkpoint_of_another_depth_leaves_out_drift_per_layer(
    tiny: Path, tmp_path: Path
) -> None:
    shallow = save_model_directory(tmp_path / "shallow", num_hidden_layers=3)
    recipes = (str(shallow), "drop:mlp=[1]")
    steps = decode(open_session(options(tiny, *recipes), None, lambda *_: None))
    assert steps[0].layers[0] is None
    assert len(present(steps[0].layers_of(2))) == 2 * DEPTH
    assert steps[0].drift[0] is not None
    assert lane_tokens(steps, 1) == generate(make_model("llama", num_hidden_layers=3))


def test_a_checkpoint_is_never_half_written(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    made = builder(tiny).build(parse("drop:attn=[0]"))

    def broken(*_args: object, **_others: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export, "save_file", broken)
        with pytest.raises(UserError, match="No space left on device"):
            save_checkpoint(made, tiny, tmp_path / "out" / "pruned")
    assert [*(tmp_path / "out").iterdir()] == []
    # What fails after the weights does not lose them.
    with monkeypatch.context() as patch:
        patch.setattr(export.shutil, "copyfile", broken)
        with pytest.raises(UserError, match="No space left on device; the weights are in"):
            save_checkpoint(made, tiny, tmp_path / "out" / "pruned")
    (unfinished,) = (tmp_path / "out").iterdir()
    assert (unfinished / "model.safetensors").exists()
    save_checkpoint(made, tiny, tmp_path / "out" / "pruned")
    with pytest.raises(UserError, match="exists already"):
        save_checkpoint(made, tiny, tmp_path / "out" / "pruned")


def test_a_checkpoint_of_16_bits_is_pruned_into_one(tmp_path: Path) -> None:
    """A bfloat16 model is pruned in float32 and written in bfloat16, other weights unchanged."""
    model = moved(make_model("llama", tie_word_embeddings=True), torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    recipe = "wanda:0.5+drop:mlp=[0]"
    prune(options(tmp_path / "model", recipe), tmp_path / "pruned", "transformers")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    assert stock.dtype == torch.bfloat16
    before = model.state_dict()
    for name, weight in stock.state_dict().items():
        pruned = "mlp.down" in name and "layers.0" in name
        assert torch.equal(
            weight, torch.zeros_like(weight) if pruned else before[name].where(weight != 0, 0)
        )
    steps = decode(open_session(options(tmp_path / "model", recipe), None, lambda *_: None))
    assert lane_tokens(steps, 1) == generate(stock.float())
    prune(options(tmp_path / "model", recipe, dtype="float32"), tmp_path / "wide", "transformers")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "wide").dtype == torch.float32


def test_mergekit_keeps_the_layers_that_are_left(tiny: Path) -> None:
    build = builder(tiny)
    assert mergekit_yaml(build.build(parse("drop:block=[1]")), "it's", torch.bfloat16) == (
        "slices:\n"
        "  - sources:\n"
        "      - model: 'it''s'\n"
        "        layer_range: [0, 1]\n"
        "  - sources:\n"
        "      - model: 'it''s'\n"
        "        layer_range: [2, 4]\n"
        "merge_method: passthrough\n"
        "dtype: bfloat16\n"
    )
    with pytest.raises(UserError, match="is not a drop of whole layers"):
        mergekit_yaml(build.build(parse("drop:attn=[1]")), "m", torch.float32)
    with pytest.raises(UserError, match="drops every layer, and nothing is left to merge"):
        mergekit_yaml(build.build(parse("drop:block=4")), "m", torch.float32)


# -- calibration ----------------------------------------------------------------------------------


def test_calibration_may_be_jsonl_or_sampled(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "One two three four five six"}\n{"text": "seven"}\n')
    made = builder(tiny, calibration=str(file), calibration_length=8)
    texts = [make_tokenizer().decode(window) for window in made.calibration.windows()]
    assert texts == ["One two ", "three fo", "ur five "]
    sampled = builder(tiny, calibration="self").calibration.windows()
    assert [len(window) for window in sampled] == [24] * 3
    again = builder(tiny, calibration="self").calibration.windows()
    assert all(torch.equal(a, b) for a, b in zip(sampled, again, strict=True))
    file.write_text("not json\n")
    with pytest.raises(UserError, match="is not JSONL"):
        builder(tiny, calibration=str(file))


def test_a_seed_chooses_other_samples_of_the_same_text(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("".join(map(chr, range(0x21, 0x7F))))

    def texts(seed: int, **others) -> list[str]:
        made = builder(
            tiny, calibration=str(file), calibration_length=8, calibration_seed=seed, **others
        )
        return [str(make_tokenizer().decode(window)) for window in made.calibration.windows()]

    first = texts(0)
    assert first == [file.read_text()[start : start + 8] for start in (0, 8, 16)]
    chosen = [texts(seed) for seed in (1, 2, 3)]
    assert texts(1) == chosen[0]
    assert len({*map(tuple, [first, *chosen])}) == 4
    for samples in chosen:
        assert len({*samples}) == 3
        assert all(len(text) == 8 and text in file.read_text() for text in samples)
    # Never more samples than the text has room for side by side, so that seeds differ in nothing
    # but the choice.
    assert len(texts(1, calibration_samples=50)) == len(texts(0, calibration_samples=50)) == 11
    file.write_text("12345678")
    assert texts(0) == ["12345678"]
    with pytest.raises(UserError, match="has 8 tokens, just one sample, and so --calibration-seed"):
        texts(1)


def test_a_seed_makes_the_baseline_say_something_else(tiny: Path) -> None:
    def sampled(seed: int) -> list[torch.Tensor]:
        made = builder(tiny, calibration="self", calibration_samples=1, calibration_seed=seed)
        return made.calibration.windows()

    assert torch.equal(sampled(1)[0], sampled(1)[0])
    assert not torch.equal(sampled(1)[0], sampled(0)[0])


def test_jsonl_may_hold_other_separators_of_lines(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "One\u2028two"}\r\n\n{"text": "three\u0085four"}\n', "utf-8")
    assert (
        builder(tiny, calibration=str(file)).calibration.key[0] == "One\u2028two\n\nthree\u0085four"
    )


def test_what_the_baseline_says_depends_on_nothing_but_its_weights(tiny: Path) -> None:
    """Neither gates installed for a measurement nor a repetition penalty changes the samples."""
    expected = builder(tiny, calibration="self").calibration.windows()
    ranked = builder(tiny, calibration="self")
    ranked.build(parse("drop:attn=[0,1]+drop:mlp=1"))
    assert all(map(torch.equal, ranked.calibration.windows(), expected))
    punishing = builder(tiny, calibration="self")
    generation = punishing.loaded.model.generation_config
    generation.repetition_penalty = 5.0
    assert all(map(torch.equal, punishing.calibration.windows(), expected))
    assert punishing.loaded.model.generation_config is generation


def test_what_a_ranking_depends_on_is_in_its_key(tiny: Path) -> None:
    made = [
        builder(tiny),
        builder(tiny, calibration_samples=2),
        builder(tiny, calibration_length=23),
        builder(tiny, calibration_seed=1),
        builder(tiny, calibration_seed=2),
        builder(tiny, calibration="self"),
        builder(tiny, calibration="self", calibration_seed=1),
        builder(tiny, dtype="bfloat16"),
    ]
    (tiny / "tokenizer.json").write_text((tiny / "tokenizer.json").read_text() + " ")
    made.append(builder(tiny))
    keys = {(build.loaded.fingerprint, *build.calibration.key) for build in made}
    assert len(keys) == len(made)


def test_weights_are_pruned_by_what_the_drops_before_leave(tiny: Path) -> None:
    made = builder(tiny).build(parse("drop:attn=[1]+drop:mlp=[0]+wanda:0.5"))
    model = make_model("llama")
    zero_output(model, 1, "attn")
    zero_output(model, 0, "mlp")
    expected = WeightGroup(model, find_anatomy(model))
    windows = builder(tiny).calibration.windows()
    sparsify_model(model, expected.anatomy, Sparsify("wanda", 0.5), windows, lambda _: None)
    weights = model.state_dict()
    own = {"model.layers.1.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight"}
    for name, weight in made.group.model.state_dict().items():
        assert name in own or torch.equal(weight, weights[name]), name


def test_a_data_set_needs_its_package(tiny: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    made = builder(tiny, calibration="hf:allenai/c4:en")
    with pytest.raises(UserError, match=r"pip install 'prunetui\[hf\]'"):
        made.baseline_similarity()


def test_of_a_data_set_the_beginning_is_read(tiny: Path, monkeypatch) -> None:
    read = []

    def load_dataset(*args: object, **kwargs: object):
        assert (args, kwargs) == (("allenai/c4", "en"), {"split": "train", "streaming": True})
        for number in range(1000):
            read.append(number)
            yield {"text": f"{number:03} bottles", "url": "…"}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    made = builder(tiny, calibration="hf:allenai/c4:en", calibration_length=13)
    texts = [make_tokenizer().decode(window) for window in made.calibration.windows()]
    assert texts == ["000 bottles\n\n", "001 bottles\n\n", "002 bottles\n\n"]
    # Eight characters for each of the tokens that are needed.
    assert len(read) == math.ceil(8 * 3 * 13 / 11)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"body": "text", "url": "…"}], "has no column `text` of strings, but body, url"),
        ([{"text": 3}], "has no column `text` of strings, but text"),
        (None, r"hf:c4 cannot be read \(no such data set\)"),
        ([], "the calibration text has 0 tokens"),
    ],
)
def test_a_data_set_that_cannot_be_used(tiny: Path, monkeypatch, rows, message: str) -> None:
    def load_dataset(*_: object, **__: object):
        if rows is None:
            raise FileNotFoundError("no such data set")
        return rows

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match=message):
        builder(tiny, calibration="hf:c4").calibration.windows()
    with pytest.raises(UserError, match="hf: names no data set"):
        builder(tiny, calibration="hf:")


def test_a_ranking_that_is_broken_off_leaves_no_file(tiny: Path) -> None:
    import os

    opened = False

    def stop(_doing: str, done: float | None) -> None:
        if opened and done is not None:
            raise KeyboardInterrupt

    made = open_builder(options(tiny), stop)
    opened = True
    with pytest.raises(KeyboardInterrupt):
        made.baseline_similarity()
    kept = Path(os.environ["XDG_CACHE_HOME"]) / "prunetui" / "similarity"
    assert [*kept.iterdir()] == []
    assert find_anatomy(made.loaded.model).droppable


def test_a_variant_that_memory_has_no_room_for_is_left_out(tiny: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("prunetui.engine.variants.builder.sparsify_model", full)
    session = open_session(options(tiny, "wanda:0.5", "drop:attn=[1]"), None, lambda *_: None)
    assert [lane.name for lane in session.trace.header.lanes] == ["baseline", "drop:attn=[1]"]
    asked = session.trace.header.options
    assert asked is not None
    assert asked.variants == ("drop:attn=[1]",)
    session.step()
    resumed = open_session(asked, None, lambda *_: None, session.trace)
    assert len(resumed.trace.steps) == 1
    resumed.close()
    assert session.left_out == [
        "variant wanda:0.5 is left out: out of memory while applying wanda:0.5"
    ]
