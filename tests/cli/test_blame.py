"""`prunetui blame` on the command line: means over texts, and the sentences for mistakes."""

import json
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from prunetui.engine.errors import UserError
from prunetui.engine.session import blaming
from prunetui.engine.trace.analysis.blame_sentences import verdict
from prunetui.engine.trace.figures import kl
from prunetui.engine.trace.file import read_trace
from transformers import AutoModelForCausalLM

from ..support.command_line import complaint, prunetui
from ..support.models import save_model_directory, zero_output

VARIANT = "drop:attn=[1,2]"
STEPS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def trace(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("traces") / "a.trace.jsonl"
    command = ("record", "-m", model, "-v", VARIANT, "-v", "control", "--prompt", "Twelve bytes")
    assert prunetui(*command, "--ignore-eos", "--max-new-tokens", STEPS, "-o", file) == 0
    return file


def stock_kl(model: Path, tokens: list[int], first: int, dropped: tuple[int, ...]) -> float:
    """Mean KL(p ‖ q), in float64 from stock models, of the positions from `first` on."""
    stock = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.inference_mode():
        p = stock(torch.tensor([tokens])).logits[0, first:].double().log_softmax(-1)
        for layer in dropped:
            zero_output(stock, layer, "attn")
        q = stock(torch.tensor([tokens])).logits[0, first:].double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


@pytest.mark.parametrize("whose", ["baseline", "lane"])
def test_the_mean_over_a_trace_is_that_of_stock_models(
    model: Path, trace: Path, tmp_path: Path, whose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "blame.json"
    assert prunetui("blame", trace, "--lane", 1, "--tokens", whose, "-o", out) == 0
    recorded = read_trace(trace)
    lane = 0 if whose == "baseline" else 1
    chosen = [step.lanes[lane].token for step in recorded.steps]  # type: ignore[union-attr]
    prompt = recorded.header.prompt.tokens
    tokens, first = [*prompt, *chosen[:-1]], len(prompt) - 1
    (found,) = json.loads(out.read_text())
    assert (found["lane"], found["positions"], found["not_comparable"]) == (VARIANT, STEPS, 0)
    assert found["kl"] == pytest.approx(stock_kl(model, tokens, first, (1, 2)), rel=1e-4)
    parts = {part["part"]: part for part in found["parts"]}
    assert parts.keys() == {"attention 1", "attention 2"}
    for layer, other in ((1, 2), (2, 1)):
        part = parts[f"attention {layer}"]
        given_back, alone = (stock_kl(model, tokens, first, (n,)) for n in (other, layer))
        assert part["kl_given_back"] == pytest.approx(given_back, rel=1e-4)
        assert part["kl_alone"] == pytest.approx(alone, rel=1e-4)
    left = [part["kl_given_back"] for part in found["parts"]]
    assert left == sorted(left)
    if whose == "baseline":
        local = [step.local_of(1).kl or 0 for step in recorded.steps]  # type: ignore[union-attr]
        assert found["kl"] == pytest.approx(sum(local) / STEPS, rel=1e-4)
    assert "mean KL(p‖q)" in capsys.readouterr().out


def test_the_mean_over_prompts_is_that_of_their_traces(model: Path, tmp_path: Path) -> None:
    prompts, means = tmp_path / "prompts.txt", []
    prompts.write_text("Twelve bytes\n\nBees make\n")
    command = ("blame", "-m", model, "-v", VARIANT, "-v", "small=drop:mlp=[0]")
    limit = ("--ignore-eos", "--max-new-tokens", STEPS)
    out = tmp_path / "prompts.json"
    assert prunetui(*command, *limit, "--prompts", prompts, "-o", out) == 0
    found, small = json.loads(out.read_text())
    assert (found["lane"], small["lane"]) == (VARIANT, "small")
    assert found["positions"] == 2 * STEPS
    for number, prompt in enumerate(("Twelve bytes", "Bees make")):
        file, one = tmp_path / f"{number}.trace.jsonl", tmp_path / f"{number}.json"
        record = ("record", "-m", model, "-v", VARIANT, "--prompt", prompt, *limit)
        assert prunetui(*record, "-o", file) == 0
        # Of a trace with one variant, that is the one.
        assert prunetui("blame", file, "-o", one) == 0
        means.append(json.loads(one.read_text())[0]["kl"])
    assert found["kl"] == pytest.approx(sum(means) / 2, rel=1e-5)


def test_a_step_is_printed_and_recorded_in_a_new_trace(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "blamed.trace.jsonl"
    assert prunetui("blame", trace, "--lane", 1, "--step", 2, "-o", file) == 0
    printed = " ".join(capsys.readouterr().out.split())
    before, after = read_trace(trace), read_trace(file)
    (blame,) = after.steps[2].blames
    assert [part.part.name for part in blame.parts] == ["attention 1", "attention 2"]
    assert printed.startswith(f"{VARIANT} at step 2, on the baseline's tokens {verdict(blame)}")
    for part in blame.parts:
        assert f"{part.part.name} {kl(part.given_back.kl)} " in printed
    local = before.steps[2].local_of(1)
    assert local is not None
    assert blame.pruned.kl == pytest.approx(local.kl, rel=1e-4)
    assert [replace(step, blames=[]) for step in after.steps] == before.steps


def test_what_was_found_before_a_refusal_is_printed_and_recorded(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("this family keeps a state")

    monkeypatch.setattr(blaming, "where_in_text", refuse)
    file = tmp_path / "blamed.trace.jsonl"
    assert prunetui("blame", trace, "--lane", 1, "--step", 2, "--text", "-o", file) == 2
    said = capsys.readouterr()
    assert "this family keeps a state" in said.err
    (blame,) = read_trace(file).steps[2].blames
    assert verdict(blame) in " ".join(said.out.split())


def test_a_refused_blame_leaves_no_file(trace: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "blamed.trace.jsonl"
    command = ("blame", trace, "--lane", 2, "--step", 1, "-o", file)
    assert "control prunes nothing" in complaint(capsys, *command)
    assert not file.exists()


def test_mistakes_are_sentences(model: Path, trace: Path, tmp_path: Path, capsys) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Bees make\n")
    for arguments, sentence in {
        (): "blame reads a trace or, with --prompts, a file of prompts; name one",
        (trace,): f"several variants; choose one by --lane: 1 {VARIANT}, 2 control",
        (trace, "--lane", 0): "lane 0 is the baseline",
        (trace, "--lane", 3): f"there is no lane 3; the variants are 1 {VARIANT}, 2 control",
        (trace, "--lane", 2): "control prunes nothing, so there is nothing to blame",
        (trace, "--lane", 1, "--step", STEPS): f"the steps are 0 to {STEPS - 1}",
        (trace, "--lane", 1, "--text"): "--text is of one step; name it with --step",
        (trace, "--lane", 1, "--dtype", "float16"): "leave --dtype out",
        (trace, "--lane", 1, "--step", 1, "-o", "/dev/stdout"): "a trace is a file of its own",
        ("--prompts", prompts, "-m", model): "give it a -v",
        ("--prompts", prompts, "--step", 1): "--step is for a trace",
    }.items():
        assert sentence in complaint(capsys, "blame", *arguments)
    forced = tmp_path / "forced.trace.jsonl"
    command = ("record", "-m", model, "-v", VARIANT, "--context", "forced", "--ignore-eos")
    assert prunetui(*command, "--max-new-tokens", 2, "-o", forced) == 0
    for more in ((), ("--step", 1)):
        said = complaint(capsys, "blame", forced, "--lane", 1, "--tokens", "lane", *more)
        assert f"in a forced context {VARIANT} reads the baseline's tokens" in said
    unnamed = tmp_path / "old.trace.jsonl"
    lines = trace.read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    header["options"] = None
    unnamed.write_text("".join([json.dumps(header) + "\n", *lines[1:]]))
    assert "does not say how it was made" in complaint(capsys, "blame", unnamed, "--lane", 1)
