"""A session whose variants are changed: the model stays loaded, and nothing of the old is left."""

import gc
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.decode import steps
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.errors import UserError
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.session import session as session_module
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Step
from prunetui.engine.variants.builder import VariantBuilder
from prunetui.engine.variants.pruning.ranking import known_drops
from prunetui.engine.variants.recipes import parse
from transformers import AutoModelForCausalLM

from ..support.models import needs_kernels, save_model_directory

STEPS = 8
FIRST = ("drop:attn=[1]", "drop:mlp=[0,2]")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {name: save_model_directory(folder / name, name) for name in ("llama", "gpt2")}
    made["opt"] = save_model_directory(folder / "opt", "opt", do_layer_norm_before=False)
    return made


@pytest.fixture(autouse=True)
def _no_bandwidth(monkeypatch) -> None:
    """Do not measure the bandwidth, which takes seconds and no test here reads."""
    monkeypatch.setattr(session_module, "read_bandwidth", lambda *_: 1e9)


def open_tiny(model: Path, record_to: Path | None = None, progress=None, **options) -> Session:
    settings = {
        "model": str(model),
        "variants": FIRST,
        "prompt": "Twelve bytes",
        "ignore_eos": True,
        "max_new_tokens": STEPS,
        "calibration_length": 32,
    }
    return open_session(Options(**(settings | options)), record_to, progress or (lambda *_: None))


def run(session: Session) -> list[Step]:
    while session.finished is None:
        session.step()
    return session.trace.steps


def without_cost(steps: list[Step]) -> list[tuple]:
    return [(s.step, s.lanes, s.candidates, s.drift, s.layers, s.local) for s in steps]


CHANGES = [
    ("drop:mlp=[0,2]", "drop:attn=[1]"),
    ("drop:joint=3", "drop:block=1", "control"),
    ("mine=wanda:0.5+drop:attn=[3]", "wanda:0.5", "drop:mlp=1"),
    (),
]


@pytest.mark.parametrize(("family", "context"), [("llama", "both"), ("gpt2", "free")])
def test_it_decodes_as_one_opened_with_these_variants(models, family: str, context: str) -> None:
    """Every number is the same, bit for bit, after any history of changes."""
    session = open_tiny(models[family], context=context)
    session.step()
    for variants in CHANGES:
        session.set_variants(variants)
        opened = open_tiny(models[family], context=context, variants=variants)
        assert session.trace.header.lanes == opened.trace.header.lanes
        assert session.trace.header.options == opened.trace.header.options
        assert session.trace.header.noise_floor == opened.trace.header.noise_floor
        assert without_cost(run(session)) == without_cost(run(opened))


def test_the_weights_stay_what_they_were(models) -> None:
    stored = dict(AutoModelForCausalLM.from_pretrained(models["llama"]).named_parameters())
    session = open_tiny(models["llama"])
    for variants in (*CHANGES, FIRST):
        session.set_variants(variants)
        session.importance()
    session.close()
    for name, parameter in session.lanes.models[0].group.model.named_parameters():
        assert torch.equal(parameter, stored[name]), name


def test_weights_are_used_again_and_freed_when_no_lane_reads_them(models) -> None:
    session = open_tiny(models["llama"], variants=("wanda:0.5", "magnitude:0.5"))
    wanda, magnitude = [lane.group.model for lane in session.lanes.models[1:]]
    session.set_variants(["drop:attn=[1]", "wanda:0.5"])
    assert session.lanes.models[2].group.model is wanda
    gone = weakref.ref(magnitude)
    del magnitude
    gc.collect()
    assert gone() is None


def test_the_order_and_the_names_are_the_recipes(models, tmp_path: Path) -> None:
    session = open_tiny(models["llama"], record_to=tmp_path / "a.trace.jsonl")
    session.step()
    session.set_variants(["late=drop:mlp=[0,2]", "drop:attn=[1]"])
    session.step()
    session.close()
    assert [lane.name for lane in session.trace.header.lanes] == [
        "baseline",
        "late",
        "drop:attn=[1]",
    ]
    assert session.recording == tmp_path / "a-2.trace.jsonl"
    assert read_trace(tmp_path / "a.trace.jsonl").header.lanes[1].name == "drop:attn=[1]"
    again = read_trace(tmp_path / "a-2.trace.jsonl")
    assert again.header == session.trace.header
    assert again.steps == session.trace.steps
    assert again.header.options is not None
    assert again.header.options.variants == ("late=drop:mlp=[0,2]", "drop:attn=[1]")


@pytest.fixture
def groups_alive(monkeypatch) -> Callable[[], int]:
    """A count of the weight groups that have been built and not freed."""
    built: weakref.WeakSet[WeightGroup] = weakref.WeakSet()
    init = WeightGroup.__init__

    def register(group: WeightGroup, *args: Any, **kwargs: Any) -> None:
        init(group, *args, **kwargs)
        built.add(group)

    monkeypatch.setattr(WeightGroup, "__init__", register)

    def count() -> int:
        gc.collect()
        return len([*built])

    return count


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (["drop:attn"], "does not parse at ▸"),
        (["magnitude:0.5", "drop:attn=5"], "drops 5 attention sublayers, but there are 4 to drop"),
        (["wanda:0.5", "drop:mlp=[9]"], "names layer 9"),
        (["magnitude:5:7"], "magnitude:5:7"),
    ],
)
def test_a_wrong_recipe_leaves_the_session_as_it_was(
    models, groups_alive: Callable[[], int], variants: list[str], message: str
) -> None:
    expected = without_cost(run(open_tiny(models["llama"])))
    session = open_tiny(models["llama"])
    for _ in range(3):
        session.step()
    trace, steps = session.trace, [*session.trace.steps]
    weights = groups_alive()
    with pytest.raises(UserError, match=message):
        session.set_variants(variants)
    assert groups_alive() == weights
    assert session.trace is trace
    assert trace.steps == steps
    # The caches are read on from, not read again: every bit is as without the attempt.
    assert without_cost(run(session)) == expected


def test_no_memory_for_the_prompt_leaves_the_session_as_it_was(models, monkeypatch) -> None:
    expected = without_cost(run(open_tiny(models["llama"])))
    session = open_tiny(models["llama"])
    session.step()

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for module, name in ((Lockstep, "prefill"), (session_module, "PreparedLanes")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(UserError, match="out of memory"):
                session.set_variants(["drop:mlp=1"])
            # From the caches: reading again would fail, too.
            session.step()
    assert without_cost(run(session)) == expected


@pytest.mark.parametrize("command", ["set_variants", "importance"])
def test_a_failed_rollback_is_not_reported_as_a_refusal(models, monkeypatch, command: str) -> None:
    """The lanes before do not go on, so no sentence may say that they do."""
    session = open_tiny(models["llama"])

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(VariantBuilder, "build_lanes", fail)
    monkeypatch.setattr(VariantBuilder, "baseline_similarity", fail)
    monkeypatch.setattr(session.lanes, "install", fail)
    with pytest.raises(torch.OutOfMemoryError):
        session.set_variants(["drop:mlp=1"]) if command == "set_variants" else session.importance()


@pytest.mark.parametrize(
    ("name", "failing"), [("Gates", 2), ("StreamHooks", 1), ("StreamHooks", 2)]
)
def test_a_lockstep_half_made_leaves_no_hook(models, monkeypatch, name: str, failing: int) -> None:
    """The first or the second batch fails; in a family whose steps heed the hooks."""
    expected = without_cost(run(open_tiny(models["gpt2"])))
    session = open_tiny(models["gpt2"])
    session.step()
    installed = []

    class FailingHooks(getattr(steps, name)):
        def install(self) -> None:
            installed.append(self)
            if len(installed) == failing:
                raise MemoryError
            super().install()

    with monkeypatch.context() as patch:
        patch.setattr(steps, name, FailingHooks)
        with pytest.raises(UserError, match="out of memory"):
            session.set_variants(["drop:mlp=[0]", "magnitude:0.5"])
    assert len(installed) == failing
    assert without_cost(run(session)) == expected


@needs_kernels
def test_no_memory_for_wide_weights_leaves_the_session_as_it_was(
    models, tmp_path: Path, monkeypatch
) -> None:
    """A checkpoint's are bfloat16, which a step reads in float32 too."""
    from prunetui.engine.cpu.packed_weights import unpack_weight

    half = shutil.copytree(models["llama"], tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16).save_pretrained(half)
    expected = without_cost(run(open_tiny(half)))
    session = open_tiny(half)
    session.step()
    for attempt in (lambda: session.set_variants(["drop:mlp=1"]), session.importance):
        left = iter(range(3))

        def unpack_thrice(narrow: object, left: Iterator[int] = left) -> torch.Tensor:
            if next(left, None) is None:
                raise torch.OutOfMemoryError
            return unpack_weight(narrow)  # pyright: ignore[reportArgumentType]

        with monkeypatch.context() as patch:
            patch.setattr("prunetui.engine.cpu.linears.unpack_weight", unpack_thrice)
            with pytest.raises(UserError, match="out of memory"):
                attempt()
        assert next(left, None) is None
        session.step()
    assert without_cost(run(session)) == expected


def test_a_variant_that_memory_has_no_room_for_is_left_out(models, monkeypatch) -> None:
    session = open_tiny(models["llama"])

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(VariantBuilder, "_sparsify", fail)
    session.set_variants(["wanda:0.5", "drop:mlp=[1]"])
    assert session.left_out == [
        "variant wanda:0.5 is left out: out of memory while applying wanda:0.5"
    ]
    assert [lane.name for lane in session.trace.header.lanes] == ["baseline", "drop:mlp=[1]"]
    assert session.trace.header.options is not None
    assert session.trace.header.options.variants == ("drop:mlp=[1]",)
    assert len(run(session)) == STEPS


def test_importance_is_what_the_recipes_use_and_disturbs_nothing(models) -> None:
    doing: list[str] = []
    expected = without_cost(run(open_tiny(models["llama"])))
    session = open_tiny(models["llama"], progress=lambda what, _: doing.append(what))
    session.step()
    assert "ranking the sublayers" not in doing
    similarity = session.importance()
    assert "ranking the sublayers" in doing
    assert without_cost(run(session)) == expected
    doing.clear()
    assert session.importance() == similarity
    assert "ranking the sublayers" not in doing
    order = sorted(range(4), key=lambda layer: -similarity.mlp[layer])
    session.set_variants(["drop:mlp=2"])
    assert session.trace.header.lanes[1].dropped_mlp == sorted(order[:2])


def test_a_family_that_takes_no_dropping_has_no_importance(models) -> None:
    session = open_tiny(models["opt"], variants=())
    with pytest.raises(UserError, match="this opt model does not take layer dropping"):
        session.importance()
    session.set_variants(["magnitude:0.5"])
    assert len(run(session)) == STEPS


def test_drops_that_are_known_are_those_that_are_built(models) -> None:
    session = open_tiny(models["llama"], variants=())
    similarity = session.importance()
    recipes = [
        "drop:attn=2",
        "drop:mlp=3",
        "drop:joint=5",
        "drop:block=2",
        "drop:block=2,consecutive",
        "drop:attn=2+drop:mlp=[0,3]",
        "drop:block=[1]+magnitude:0.5",
        "control",
    ]
    session.set_variants(recipes)
    for recipe, lane in zip(recipes, session.trace.header.lanes[1:], strict=True):
        drops = known_drops(parse(recipe), similarity)
        assert drops is not None
        assert drops.lists == (lane.dropped_attention, lane.dropped_mlp), recipe
    for recipe in (
        "drop:attn=2,iterative",
        "drop:attn=[1]+drop:mlp=1",
        "magnitude:0.5+drop:mlp=1",
        "drop:attn=5",
        "drop:block=5,consecutive",
    ):
        assert known_drops(parse(recipe), similarity) is None, recipe
