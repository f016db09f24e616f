"""Command line on tiny models: the tokens it decodes, and the sentences for mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.figures import cosine, kl
from prunetui.engine.trace.file import read_trace

from ..support.command_line import MAIN, WITHOUT_TORCH, complaint, prunetui
from ..support.measures import measured
from ..support.models import (
    OUTPUT_PROJECTIONS,
    greedy_tokens,
    make_model,
    make_tokenizer,
    save_model_directory,
    zero_output,
)
from ..support.steps import lane_tokens, present
from ..support.traces import make_header, make_step

PROMPT = "What is it?"
STEPS = 10


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_directory(tmp_path / "tiny")


def record(model: Path, output: Path, *arguments: object) -> int:
    return prunetui(
        *("record", "-m", model, "--dtype", "float32", "--raw", "--prompt", PROMPT),
        *("--max-new-tokens", STEPS, "--ignore-eos", "-o", output, *arguments),
    )


@pytest.mark.parametrize("kind", ["attn", "mlp"])
@pytest.mark.parametrize("family", sorted(OUTPUT_PROJECTIONS))
def test_record_decodes_what_stock_models_decode(family: str, kind: str, tmp_path: Path) -> None:
    """Lane 0 equals `generate`; the variant equals a stock model with zeroed output projections."""
    directory = save_model_directory(tmp_path / family, family)
    path = tmp_path / "a.trace.jsonl"
    assert record(directory, path, "-v", f"drop:{kind}=[0,2]") == 0
    steps = read_trace(path).steps
    recorded = [lane_tokens(steps, lane) for lane in (0, 1)]

    stock, pruned = make_model(family), make_model(family)
    for layer in (0, 2):
        zero_output(pruned, layer, kind)
    prompt = make_tokenizer()(PROMPT, return_tensors="pt")["input_ids"]
    for lane, model in enumerate((stock, pruned)):
        assert recorded[lane] == greedy_tokens(model, prompt, STEPS)

    for number, step in enumerate(steps):
        h, z = [], []
        for lane, model in enumerate((stock, pruned)):
            text = torch.cat(
                [prompt, torch.tensor([recorded[lane][:number]], dtype=torch.int64)], dim=1
            )
            out = model(input_ids=text, use_cache=False, output_hidden_states=True)
            h.append(out.hidden_states[-1][0, -1])
            z.append(out.logits[0, -1])
        for key, value in measured(torch.stack(h), torch.stack(z), 1.0).items():
            assert getattr(step.drift[0], key) == pytest.approx(value.item(), rel=1e-3, abs=1e-4)


def test_record_prints_a_table_and_the_texts(tiny: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.trace.jsonl"
    assert record(tiny, path, "-v", "drop:attn=[1]", "-v", "drop:mlp=2") == 0
    printed = capsys.readouterr().out
    assert "drop:attn=[1]" in printed
    assert "KL(p ‖ q), p baseline" in printed
    assert f"{STEPS} steps recorded in" in printed
    assert "\x1b" not in printed


def test_every_session_is_recorded_unless_told_otherwise(tiny: Path) -> None:
    state = Path(os.environ["XDG_STATE_HOME"]) / "prunetui"
    arguments = ("record", "-m", tiny, "--max-new-tokens", 2, "-v", "drop:attn=[1]")
    assert prunetui(*arguments, "--no-trace") == 0
    assert [*state.glob("*.trace.jsonl")] == []
    assert prunetui(*arguments) == 0
    (recorded,) = state.glob("*.trace.jsonl")
    assert len(read_trace(recorded).steps) == 2


@pytest.mark.parametrize(
    ("layers", "recipes"),
    [
        (1, ["drop:attn=1", "drop:mlp=1"]),
        (2, ["drop:attn=1", "drop:mlp=1"]),
        (3, ["drop:attn=1", "drop:attn=2", "drop:mlp=2"]),
        (7, ["drop:attn=2", "drop:attn=4", "drop:mlp=4"]),
        (8, ["drop:attn=4", "drop:attn=8", "drop:mlp=8"]),
    ],
)
def test_the_default_variants_fit_the_model(
    layers: int, recipes: list[str], tmp_path: Path, capsys
) -> None:
    """Recipes typed by the user do not shrink; the trace names the recipes that were used."""
    model = save_model_directory(tmp_path / "tiny", num_hidden_layers=layers)
    path = tmp_path / "a.trace.jsonl"
    assert record(model, path) == 0
    header = read_trace(path).header
    assert [lane.recipe for lane in header.lanes[1:]] == recipes
    assert present(header.options).variants == tuple(recipes)
    typed = f"drop:attn={layers + 1}"
    sentence = complaint(capsys, "record", "-m", model, "--no-trace", "-v", typed)
    assert f"there are {layers} to drop" in sentence


def test_a_session_of_default_variants_is_resumed(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    assert record(tiny, path) == 0
    trace = read_trace(path)
    resumed = open_session(present(trace.header.options), None, lambda *_: None, trace)
    assert resumed.trace.header.lanes == trace.header.lanes
    assert [step.lanes for step in resumed.trace.steps] == [step.lanes for step in trace.steps]


def test_options_reach_the_trace(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("From [a] file\n", "utf-8")
    assert (
        prunetui(
            *("record", "-m", tiny, "-o", path, "--prompt-file", prompt, "--temperature", 0.5),
            *("--top-k", 7, "--top-p", 0.9, "--seed", 3, "--context", "forced"),
            *("--candidates", 2, "--max-new-tokens", 3, "-v", "drop:attn=[0]+drop:mlp=[1]"),
        )
        == 0
    )
    trace = read_trace(path)
    header = trace.header
    assert header.prompt.text == "From [a] file\n"
    sampling = header.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.5, 7, 0.9)
    assert (sampling.seed, sampling.max_new_tokens, header.context) == (3, 3, "forced")
    assert header.lanes[1].recipe == "drop:attn=[0]+drop:mlp=[1]"
    assert 2 <= len(trace.steps[0].candidates.tokens) <= 4


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["record", "-m", "./nowhere"], "there is no model at ./nowhere"),
        (["record", "-m", "no/such-model"], "there is no directory no/such-model"),
        (["record", "-m", "a b"], "there is no model at a b"),
        (["record", "-m", "x.gguf"], "there is no model at x.gguf"),
        (["record", "-v", "drop:atn=4"], "recipe 'drop:▸atn=4' does not parse at ▸"),
        (["record", "--prompt", "a", "--prompt-file", "b"], "give one of them"),
        (["record", "--prompt-file", "/no/such/file"], "cannot read the prompt file"),
        (["record", "--top-p", "0"], "--top-p is 0.0"),
        (["record", "--top-p", "1.5"], "--top-p is 1.5"),
        (
            ["record", "--temperature", "-1"],
            "--temperature is -1.0; it must be 0 or from 1e-6 to 1e6",
        ),
        (["record", "--temperature", "inf"], "--temperature is inf"),
        (["record", "--temperature", "1e300"], "--temperature is 1e+300"),
        (["record", "--device", "meta"], "there is no device 'meta' here"),
        (["record", "-m", "~nobody/x"], "there is no model at ~nobody/x"),
        (["record", "-m", "x" * 300], "the Hugging Face hub did not give a model"),
        (["record", "-v", "drop:attn=" + "9" * 5000], "does not parse"),
        (["record", "-o", "x" * 300], "File name too long"),
        (["record", "--prompt", "a \udcff"], "is no UTF-8 text"),
        (["record", "--context", "loose"], "--context"),
        (["record", "--dtype", "int8"], "--dtype"),
        (["record", "--device", "toaster"], "there is no device 'toaster' here"),
        (["record", "--no-trace", "-o", "x"], "give one of them"),
        (["record", "-o", "/proc/nothing/x"], "cannot write /proc/nothing/x"),
        (["-m", "demo", "record"], "options go behind the command: prunetui record --model"),
        (["replay", "/no/such/file"], "cannot read /no/such/file"),
        (["export", "/no/such/file", "-o", "x.csv"], "cannot read /no/such/file"),
        (["export", "x", "-o", "x.pdf"], "'pdf' is no format of a trace; --format takes csv"),
        (["dance"], "No such command"),
        (["--prompt"], "--prompt"),
    ],
)
def test_a_mistake_gets_a_sentence(arguments: list[str], part: str, capsys) -> None:
    assert part in complaint(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-v", "~nobody/x"], "there is no model at ~nobody/x"),
        (["-v", "control", "--answers", "A,A"], "the answer 'A' is named twice"),
        (["-v", "control", "--answers", "A,BC"], "the answer 'BC' is 2 tokens and must be one"),
    ],
)
def test_a_mistake_that_a_model_finds(tiny: Path, arguments: list[str], part: str, capsys) -> None:
    assert part in complaint(capsys, "record", "-m", tiny, "--raw", "--no-trace", *arguments)


def test_a_cache_that_cannot_be_written_is_named(
    tiny: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    sentence = complaint(capsys, "record", "-m", tiny, "--raw", "--no-trace", "-v", "drop:attn=1")
    assert "nothing can be kept in the cache directory" in sentence
    assert "set XDG_CACHE_HOME" in sentence


def test_a_recording_says_why_it_has_ended(tiny: Path, capsys) -> None:
    assert (
        prunetui(
            "record", "-m", tiny, "--raw", "--no-trace", "--max-new-tokens", 2, "-v", "control"
        )
        == 0
    )
    output = " ".join(capsys.readouterr().out.split())
    assert "Nothing is left to decode: 2 new tokens are decoded" in output


def test_a_device_map_spreads_a_model_or_says_why_not(tiny: Path, tmp_path: Path, capsys) -> None:
    """Spread by auto without GPUs, all of the model is on the CPU."""
    plain, spread = tmp_path / "a.trace.jsonl", tmp_path / "b.trace.jsonl"
    assert record(tiny, plain, "-v", "wanda:0.5") == 0
    assert record(tiny, spread, "-v", "wanda:0.5", "--device-map", "auto") == 0
    assert [step.lanes for step in read_trace(spread).steps] == [
        step.lanes for step in read_trace(plain).steps
    ]
    assert "leave --device out" in complaint(
        capsys, "record", "-m", tiny, "--device-map", "auto", "--device", "cpu"
    )


def test_an_output_that_exists_is_refused_before_anything_is_loaded(tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.trace.jsonl"
    path.write_text("mine")
    assert "exists already" in complaint(capsys, "record", "-m", tmp_path / "none", "-o", path)
    assert path.read_text() == "mine"


def test_a_model_that_is_damaged_or_not_whole(tiny: Path, capsys) -> None:
    def sentence() -> str:
        return complaint(capsys, "record", "-m", tiny, "--no-trace", "-v", "drop:attn=[0]")

    weights = tiny / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    assert "model.safetensors is cut short" in sentence()
    weights.write_bytes(b"\x80\x04pickle")
    assert "model.safetensors is cut short or no safetensors file (8 bytes)" in sentence()
    weights.write_bytes(content)
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    assert "tiny is not whole" in sentence()
    (tiny / "config.json").write_text("{")
    assert "config.json is damaged: it is not JSON" in sentence()
    (tiny / "config.json").unlink()
    assert "holds no model: it has no config.json" in sentence()


def test_a_model_without_a_tokenizer(tiny: Path, capsys) -> None:
    for file in tiny.glob("tokenizer*"):
        file.unlink()
    assert "tiny has no tokenizer" in complaint(capsys, "record", "-m", tiny, "--no-trace")


def test_weights_that_are_a_pickle_are_refused(tiny: Path, capsys) -> None:
    (tiny / "model.safetensors").unlink()
    torch.save({}, tiny / "pytorch_model.bin")
    sentence = complaint(capsys, "record", "-m", tiny, "--no-trace")
    assert "has its weights in pytorch_model.bin only, a pickle, which can run code" in sentence


def test_a_file_that_is_no_gguf(tmp_path: Path, capsys) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"hello")
    assert "is not a GGUF file" in complaint(capsys, "record", "-m", file)
    file.write_bytes(b"GGUF\x03\x00\x00\x00")
    assert "model.gguf cannot be read as GGUF" in complaint(
        capsys, "record", "-m", file, "--no-trace"
    )


def test_an_error_of_ours_goes_to_the_log() -> None:
    program = (
        "import prunetui.tui.cli.record as module\n"
        "module.record = lambda *_: 1 / 0\n"
        "from prunetui.tui.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "record", "--no-trace"],
        capture_output=True,
        text=True,
        check=False,
    )
    log = Path(os.environ["XDG_STATE_HOME"]) / "prunetui" / "prunetui.log"
    assert done.returncode == 1
    assert " ".join(done.stderr.split()) == (
        f"prunetui: something went wrong in prunetui itself; {log} has the details"
    )
    assert "ZeroDivisionError: division by zero" in log.read_text()


def test_rank_shows_every_layer_and_writes_json(tiny: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "rank.json"
    assert prunetui("rank", "-m", tiny, "-o", output) == 0
    printed = capsys.readouterr().out
    assert "calibration tokens" in printed
    ranks = json.loads(output.read_text())
    assert [len(ranks[key]) for key in ("attn", "mlp", "block", "runs")] == [4, 4, 4, 4]
    assert ranks["block"] == ranks["runs"][0]
    assert "exists already" in complaint(capsys, "rank", "-m", tiny, "-o", output)


def test_rank_shows_both_rankings_and_where_they_differ(tiny: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "rank.json"
    small = ("--calibration-samples", "1", "--calibration-length", "16")
    assert prunetui("rank", "-m", tiny, "--by", "kl", *small, "-o", output) == 0
    printed = capsys.readouterr().out
    ranks = json.loads(output.read_text())
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] == ["0"]]
    expected = ["0"]
    for name in ("attn", "mlp", "block"):
        by_cosine = 1 + sum(value > ranks[name][0] for value in ranks[name][1:])
        by_kl = 1 + sum(value < ranks["kl"][name][0] for value in ranks["kl"][name][1:])
        expected += [cosine(ranks[name][0]), str(by_cosine)]
        expected += [kl(ranks["kl"][name][0]), str(by_kl)]
        expected += [f"{by_kl - by_cosine:+d}"] if by_kl != by_cosine else []
    assert rows == [expected]
    assert "KL(p ‖ q) in nats" in printed


def test_prune_writes_a_checkpoint_or_a_merge(tiny: Path, tmp_path: Path, capsys) -> None:
    pruned, merge = tmp_path / "pruned", tmp_path / "merge.yaml"
    assert prunetui("prune", "-m", tiny, "-v", "drop:attn=[1]", "-o", pruned) == 0
    assert "attention dropped in [1], MLP in []" in capsys.readouterr().out
    assert json.loads((pruned / "config.json").read_text())["drop_attn_list"] == [1]
    (plain := tmp_path / "plain").mkdir()
    assert pruned.stat().st_mode == plain.stat().st_mode
    arguments = ("prune", "-m", tiny, "-v", "drop:block=[0]", "--format", "mergekit", "-o", merge)
    assert prunetui(*arguments) == 0
    assert "layer_range: [1, 4]" in merge.read_text()
    assert f"model: '{tiny.resolve()}'" in merge.read_text()
    assert "exists already" in complaint(capsys, *arguments)
    assert "give it one -v" in complaint(capsys, "prune", "-m", tiny, "-o", tmp_path / "x")


# -- export and replay ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "json", "md", "html"])
def test_export_writes_a_new_file(form: str, tmp_path: Path, capsys) -> None:
    from prunetui.engine.trace.export.formats import FORMATS
    from prunetui.engine.trace.file import TraceWriter

    path, output = tmp_path / "a.trace.jsonl", tmp_path / f"a.{form}"
    writer = TraceWriter(path, make_header())
    writer.write(make_step(0))
    writer.close()
    assert prunetui("export", path, "-o", output) == 0
    assert output.read_text("utf-8") == FORMATS[form](read_trace(path))
    assert "exists already" in complaint(capsys, "export", path, "-o", output)
    other = tmp_path / "b"
    assert prunetui("export", path, "--format", form, "-o", other) == 0
    assert other.read_bytes() == output.read_bytes()


def test_the_inspector_needs_a_terminal(tmp_path: Path, capsys) -> None:
    from prunetui.engine.trace.file import TraceWriter

    path = tmp_path / "a.trace.jsonl"
    TraceWriter(path, make_header()).close()
    for arguments in (["replay", path], ["--no-trace"]):
        assert "the inspector needs a terminal" in complaint(capsys, *arguments)


def test_a_recording_killed_replays_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    running = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TORCH + MAIN, "record", "-o", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < 20:
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    whole_steps = path.read_bytes().count(b"\n") - 1
    assert len(read_trace(path).steps) == whole_steps >= 19
    with path.open("ab") as file:
        file.write(b'{"kind":"step","st')
    assert len(read_trace(path).steps) == whole_steps
