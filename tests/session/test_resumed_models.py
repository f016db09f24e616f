"""A trace goes on with the weights that it was decoded with, wherever they lie now."""

from pathlib import Path

import msgspec
import pytest
import torch
import typer
from prunetui.engine.errors import UserError
from prunetui.engine.model.fingerprint import weights_fingerprint
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.file import read_trace
from prunetui.tui import app as tui_app
from prunetui.tui.cli import commands
from transformers import AutoModelForCausalLM

from ..support.models import make_model, save_model_directory


def record(model: Path, file: Path) -> Options:
    options = Options(
        model=str(model), prompt="Say", raw=True, variants=("drop:attn=[1]",), max_new_tokens=4
    )
    session = open_session(options, file, lambda *_: None)
    session.step()
    session.close()
    return options


def resume(options: Options, file: Path) -> int:
    """Resume a trace, decode a step and return the number of steps."""
    session = open_session(options, None, lambda *_: None, read_trace(file))
    session.step()
    session.close()
    return len(session.trace.steps)


def change_a_tensor(directory: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight.mul_(1.01)
    model.save_pretrained(directory)


def test_a_model_that_has_moved_is_known_by_its_weights(tmp_path: Path) -> None:
    file = tmp_path / "a.trace.jsonl"
    old, new = save_model_directory(tmp_path / "old"), tmp_path / "elsewhere"
    options = record(old, file)
    old.rename(new)
    assert resume(msgspec.structs.replace(options, model=str(new)), file) == 2
    # Others of the same name and shapes, in either place.
    save_model_directory(old, seed=1)
    change_a_tensor(new)
    for place, name in ((old, "old"), (new, "elsewhere")):
        with pytest.raises(UserError, match=rf"the file is of old .* and {name} .* other weights"):
            resume(msgspec.structs.replace(options, model=str(place)), file)


def test_a_trace_without_a_fingerprint_is_compared_by_name_and_size(tmp_path: Path) -> None:
    file = tmp_path / "a.trace.jsonl"
    model = save_model_directory(tmp_path / "model")
    options = record(model, file)
    header, *steps = file.read_text("utf-8").splitlines()
    whole = msgspec.json.decode(header)
    assert len(whole["model"].pop("fingerprint")) == 64
    file.write_text("\n".join([msgspec.json.encode(whole).decode(), *steps, ""]), "utf-8")
    assert resume(options, file) == 2
    moved = model.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="the file is of model "):
        resume(msgspec.structs.replace(options, model=str(moved)), file)


def test_the_command_line_names_a_new_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.trace.jsonl"
    options = record(save_model_directory(tmp_path / "old"), file)
    asked: list[Options] = []
    monkeypatch.setattr(commands, "run_app", lambda _: None)
    monkeypatch.setattr(tui_app, "PrunetuiApp", lambda options, *_, **__: asked.append(options))
    command = typer.main.get_command(commands.app)
    command(["--resume", str(file), "-m", "there", "--no-trace"], standalone_mode=False)
    assert asked == [msgspec.structs.replace(options, model="there")]


def test_a_fingerprint_is_of_every_tensor_in_any_wider_dtype() -> None:
    model = make_model("gpt2").bfloat16()
    whole = weights_fingerprint(model)
    assert weights_fingerprint(model.float()) == whole
    for _, parameter in model.named_parameters():
        first = parameter.view(-1)[:1]
        before = first.clone()
        first += 1
        assert weights_fingerprint(model) != whole
        first.copy_(before)
    assert weights_fingerprint(model) == whole
