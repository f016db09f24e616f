"""A model spread over several devices, which are only pretended here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from prunetui.engine.decode import steps
from prunetui.engine.errors import UserError
from prunetui.engine.measure import logit_lens, reductions
from prunetui.engine.measure.logit_lens import read_lens
from prunetui.engine.measure.step_numbers import StepNumbers
from prunetui.engine.measure.step_reduction import StepRequest
from prunetui.engine.model import loading, pretrained
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.detokenize import TokenTexts
from prunetui.engine.model.device_map import DeviceMap, describe_device_map
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Context, Options
from prunetui.engine.progress import Progress
from prunetui.engine.session import session
from prunetui.engine.trace.records import LaneLens, Sampling, Step
from prunetui.engine.variants import builder as variants
from prunetui.engine.variants.pruning.importance import measure_similarity
from prunetui.engine.variants.pruning.layerwise import sparsify_model
from prunetui.engine.variants.recipes import Method, Sparsify
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..support.devices import FIRST, SECOND, Devices, Placement, move, spread, where
from ..support.lockstep import install_lockstep
from ..support.measures import numbers_and_tokens
from ..support.models import changed, make_model, make_tokenizer, save_model_directory
from ..support.steps import present

PROMPT = [5, 17, 200, 31, 8, 99]
LANES = [Dropped(), Dropped(frozenset({0, 3})), Dropped(mlp=frozenset({1, 2}))]
SAMPLING = Sampling(temperature=0.0, top_k=0, top_p=1.0, seed=0, max_new_tokens=9, ignore_eos=True)


def test_the_map_reaches_the_loader_and_what_spills_over_is_refused(
    monkeypatch, tmp_path: Path
) -> None:
    source = save_model_directory(tmp_path / "model")
    seen: list[object] = []
    model: Any = make_model("llama")

    def from_pretrained(_source: Path, **given: object) -> tuple[object, dict[str, list[str]]]:
        seen.append(given["device_map"])
        return model, {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        pretrained, "AutoModelForCausalLM", SimpleNamespace(from_pretrained=from_pretrained)
    )
    options = Options(model=str(source), device_map="auto")
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers": 1}
    baseline = loading.load(options, lambda *_: None)
    assert baseline.model is model
    assert baseline.notes == [
        "model is spread over 2 devices: embed_tokens on cuda:0; layers on cuda:1."
    ]
    # What is quantized for its device goes where the baseline is; all else is moved there later.
    quantized = changed(source, "quantized", quantization_config={"quant_method": "fp8"})
    loading.load_checkpoint(str(quantized), options, baseline, lambda *_: None)
    assert seen == ["auto", model.hf_device_map]
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers": "cpu"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 24 * 10**9))
    with pytest.raises(
        UserError,
        match=r"^model does not fit into the memory of cuda:0 and cuda:1: its weights need 0\.0 GB "
        r"in float32; cuda:0 has 1\.0 GB of 24\.0 GB free; cuda:1 has 1\.0 GB",
    ):
        loading.load(options, lambda *_: None)


@pytest.mark.parametrize(
    ("device_map", "said"),
    [
        ({"": 0}, ""),
        ({"model.embed_tokens": 1, "model.layers.0": 1, "lm_head": 1}, ""),
        (
            {
                "model.embed_tokens": 0,
                **{f"model.layers.{layer}": int(layer > 15) for layer in range(32)},
                "model.norm": 1,
                "lm_head": 1,
            },
            "layers 0 to 15, embed_tokens on cuda:0; layers 16 to 31, norm, lm_head on cuda:1",
        ),
        # Offloaded parts, a layer cut in two, and one layer alone.
        (
            {
                "wte": torch.device("cuda:1"),
                **{f"h.{layer}": torch.device("cuda:1") for layer in (0, 2, 3)},
                "h.1.attn": torch.device("cuda:1"),
                "h.1.mlp": "cpu",
                "h.4": "disk",
                "ln_f": "cpu",
            },
            "layers 0, 2 to 3, wte, h.1.attn on cuda:1; h.1.mlp, ln_f on cpu; layers 4 on disk",
        ),
        # Two stacks of layers.
        (
            {"vision.layers.0": 0, "vision.layers.1": 0, "text.layers.0": 0, "text.layers.1": 1},
            "vision.layers 0 to 1, text.layers 0 on cuda:0; text.layers 1 on cuda:1",
        ),
    ],
)
def test_the_map_is_said_in_words(device_map: DeviceMap, said: str) -> None:
    devices = len({*device_map.values()})
    expected = f"m is spread over {devices} devices: {said}." if said else ""
    assert describe_device_map("m", device_map) == expected


@pytest.fixture(autouse=True)
def _torch_adds_up(monkeypatch) -> None:
    """Use torch alone on the CPU, as on other devices: numbers are compared to the last bit."""
    monkeypatch.setattr(reductions, "backend_for", lambda *_: None)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
def test_a_spread_model_gives_the_numbers_of_a_whole_one(family: str, monkeypatch) -> None:
    # A spread model does not take the steps that attend in other ways.
    monkeypatch.setattr(steps, "supports_llama_step", lambda *_: False)
    expected, ranks = _decode(family)
    with Placement():
        found, spread_ranks = _decode(family, spread_out=True)
    assert found == expected
    assert spread_ranks == ranks


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gpt2"])
def test_on_another_device_nothing_is_on_the_cpu(family: str) -> None:
    expected, ranks = _decode(family)
    with Placement():
        found, other_ranks = _decode(family, place=SECOND)
    assert found == expected
    assert other_ranks == ranks


@pytest.mark.parametrize(
    "method", ["magnitude", "wanda", pytest.param("sparsegpt", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_spread_model_is_pruned_and_decodes_like_a_whole_one(
    family: str, method: Method, monkeypatch
) -> None:
    monkeypatch.setattr(steps, "supports_llama_step", lambda *_: False)
    expected, weights = _prune(family, method, spread_out=False)
    with Placement():
        found, spread_weights = _prune(family, method, spread_out=True)
        assert {where(weight) for weight in spread_weights} == {FIRST, SECOND}
        assert all(map(torch.equal, map(Tensor.cpu, spread_weights), weights))
    for here, there in zip(found, expected, strict=True):
        assert (here.tokens, here.top) == (there.tokens, there.top)
        # Where weights lie in memory changes how a product rounds.
        for drift, other in zip(here.drift, there.drift, strict=True):
            assert drift == pytest.approx(other, rel=1e-5)


def test_variants_of_a_spread_model_decode_like_those_of_a_whole_one(
    monkeypatch, tmp_path: Path
) -> None:
    """Checkpoints, one of LLM-Drop's among them, pruning and drops, before and after a rewind."""
    monkeypatch.setattr(steps, "supports_llama_step", lambda *_: False)
    source = save_model_directory(tmp_path / "model", tie_word_embeddings=True)
    checkpoint = changed(
        source, "pruned", change=lambda key, weight: weight * 0.9 if _is_changed(key) else weight
    )
    dropped = changed(source, "dropped", drop_attn_list=[1, 2])
    recipes = (
        str(checkpoint),
        str(dropped),
        f"both={checkpoint}+wanda:0.5+drop:block=1",
        "magnitude:0.5+drop:attn=1",
    )
    whole, _ = _decode_variants(Options(model=str(source), variants=recipes))
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained

    def load_spread(*given: Any, device_map: object = None, **others: Any) -> Any:
        model, report = from_pretrained(*given, **others)
        if device_map == "auto":
            spread(model)
        return model, report

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load_spread)
    with Placement():
        options = Options(model=str(source), variants=recipes, device_map="auto")
        spread_out, groups = _decode_variants(options)
        baseline, pruned, llm_drop = (dict(group.model.named_parameters()) for group in groups[:3])
        for name, weight in baseline.items():
            assert (pruned[name] is weight) == (not _is_changed(name))
            assert llm_drop[name] is weight
            assert where(pruned[name]) == where(weight)
        assert {where(weight) for weight in pruned.values()} == {FIRST, SECOND}
    assert len(spread_out) == len(whole)
    for here, there in zip(spread_out, whole, strict=True):
        assert [lane and lane.token for lane in here.lanes] == [
            lane and lane.token for lane in there.lanes
        ]
        # Where weights lie in memory changes how a product rounds.
        for drift, other in zip(here.drift, there.drift, strict=True):
            assert present(drift).kl == pytest.approx(present(other).kl, rel=1e-4)


def _is_changed(name: str) -> bool:
    """Whether the checkpoint has another weight: one on either device."""
    return name in {f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 3)}


def _decode_variants(options: Options) -> tuple[list[Step], list[WeightGroup]]:
    """The steps after a rewind, and the weight groups of the lanes."""
    settings = {"prompt": "hello", "raw": True, "context": "both", "ignore_eos": True}
    settings |= {"calibration_samples": 1, "calibration_length": 24, "temperature": 0.0}
    opened = session.open_session(
        msgspec.structs.replace(options, **settings), None, lambda *_: None
    )
    for rewound_to in (0, 1):
        opened.rewind(rewound_to)
        for _ in range(2):
            opened.step()
    groups = [lane.group for lane in opened.lanes.models]
    opened.close()
    return opened.trace.steps, groups


def _prune(
    family: str, method: Method, *, spread_out: bool
) -> tuple[list[StepNumbers], list[Tensor]]:
    """Steps of the baseline beside a pruned variant, and the variant's weights."""
    model = make_model(family)
    if spread_out:
        spread(model)
    baseline = WeightGroup(model, find_anatomy(model))
    before = [weight.clone() for weight in model.parameters()]
    group = baseline.copy()
    windows = [torch.arange(first, first + 24) for first in (3, 40, 110, 170)]
    sparsify_model(group.model, group.anatomy, Sparsify(method, 0.5), windows, lambda _: None)
    assert all(map(torch.equal, before, model.parameters()))
    lanes = [(baseline, Dropped()), (group, Dropped()), (group, Dropped(frozenset({2})))]
    return _steps(lanes), [*group.model.parameters()]


@pytest.fixture
def elsewhere(monkeypatch, tmp_path: Path) -> Options:
    """Options of a session with two weight groups, whose model is loaded to another device."""
    source = save_model_directory(tmp_path / "model")

    def load_elsewhere(options: Options, progress: Progress) -> loading.Loaded:
        loaded = loading.load(options, progress)
        for module in loaded.model.modules():
            move(module, SECOND)
        return loaded

    monkeypatch.setattr(variants, "load", load_elsewhere)
    monkeypatch.setattr(session, "read_bandwidth", lambda *_: 1e9)
    return Options(
        model=str(source),
        prompt="hello",
        variants=("drop:attn=[1]", "magnitude:0.5"),
        ignore_eos=True,
    )


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("context", ["free", "forced", "both"])
def test_a_step_waits_for_the_device_once(
    context: Context, temperature: float, elsewhere: Options
) -> None:
    """Lanes of two weight groups, before and after a rewind; all that is fetched is the record."""
    options = msgspec.structs.replace(
        elsewhere, context=context, temperature=temperature, top_k=20, top_p=0.9
    )
    with Devices() as devices:
        opened = session.open_session(options, None, lambda *_: None)
        for rewound_to in (0, 2):
            opened.rewind(rewound_to)
            for step in range(4):
                devices.waits.clear()
                devices.copies.clear()
                opened.step({1: 7} if step == 2 else None)
                assert devices.waits == ["cpu"]
                assert devices.copies == []
        opened.close()


def test_the_layers_of_all_rows_are_fetched_once(elsewhere: Options, monkeypatch) -> None:
    """In parts too; the lens of a step that is read at once waits beside the step's record."""
    monkeypatch.setattr(logit_lens, "_points_at_once", lambda _: 2)
    options = msgspec.structs.replace(elsewhere, context="both", lens=True)
    with Devices() as devices:
        opened = session.open_session(options, None, lambda *_: None)
        devices.waits.clear()
        devices.copies.clear()
        opened.step()
        opened.step()
        assert devices.waits == ["cpu", "cpu"] * 2
        assert devices.copies == []
        devices.waits.clear()
        opened.read(1)
        assert devices.waits == ["cpu"]
        opened.close()


def test_the_layers_of_a_spread_model_are_those_of_a_whole_one() -> None:
    expected = _lenses(make_model("llama"))
    model = make_model("llama")
    with Placement():
        spread(model)
        found = _lenses(model)
    assert found == expected


def _lenses(model: PreTrainedModel) -> dict[int, LaneLens]:
    """Lenses of two rows of made-up streams, of which the model's own z are made."""
    group = WeightGroup(model, find_anatomy(model))
    norm = group.anatomy.norm
    assert norm is not None
    hidden = model.config.hidden_size
    # As a model's outputs, on its first device.
    streams = torch.randn(9, 2, hidden, generator=torch.Generator().manual_seed(0))
    streams = streams.to(model.device)
    with torch.inference_mode():
        h = norm(streams[-1])
        z = group.anatomy.head(h).to(model.device)
    outputs = Outputs(h.to(model.device), z, streams)
    texts = TokenTexts(make_tokenizer())
    return read_lens({group: [0, 1]}, outputs, 1.0, texts, lambda _: None)


def _decode(
    family: str, *, spread_out: bool = False, place: torch.device | None = None
) -> tuple[list[StepNumbers], object]:
    model = make_model(family)
    if place:
        for module in model.modules():
            move(module, place)
        assert model.device == place
    if spread_out:
        spread(model)
        assert {p.device for p in model.parameters()} == {FIRST, SECOND}
    anatomy = find_anatomy(model)
    steps = _steps([(WeightGroup(model, anatomy), gates) for gates in LANES])
    return steps, measure_similarity(model, anatomy, [torch.tensor(PROMPT)], lambda _: None)


def _steps(lanes: list[tuple[WeightGroup, Dropped]]) -> list[StepNumbers]:
    lockstep = install_lockstep(lanes)
    outputs = lockstep.prefill(torch.tensor(PROMPT).repeat(len(lanes), 1))
    steps = []
    request = StepRequest(lanes=len(lanes), candidates=3, answers=torch.tensor([1, 2]))
    with torch.inference_mode():
        for step in range(3):
            numbers, chosen = numbers_and_tokens(outputs, SAMPLING, step, request)
            steps.append(numbers)
            outputs = lockstep.advance(chosen[:, None].cpu())
    lockstep.remove()
    return steps
