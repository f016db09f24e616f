"""Downloads from a hub on loopback, and the sentences for what it lacks."""

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.model.source import HubName, hub_name
from prunetui.engine.trace.file import read_trace

from ..support.command_line import complaint, prunetui
from ..support.hub import Hub, commit_of, hub
from ..support.models import make_model, save_model_directory
from ..support.steps import drift_of, present


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    with hub(tmp_path / "hub") as one:
        yield one


def publish(tmp_path: Path, branch: str = "main", **config: Any) -> Path:
    return save_model_directory(tmp_path / "hub" / branch / "some" / "model", **config)


def record(tmp_path: Path, *arguments: object) -> int:
    output = tmp_path / f"{len([*tmp_path.glob('*.jsonl')])}.trace.jsonl"
    options = ("--raw", "--prompt", "Hi", "--max-new-tokens", 2, "-o", output)
    return prunetui("record", *options, *arguments)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gpt2", HubName("gpt2")),
        ("a/b", HubName("a/b")),
        ("a/b@main", HubName("a/b", None, "main")),
        ("a/b@refs/pr/3", HubName("a/b", None, "refs/pr/3")),
        ("a/b/c-Q4_K_M.gguf", HubName("a/b", "c-Q4_K_M.gguf")),
        ("a/b/sub/c.gguf@v1.0", HubName("a/b", "sub/c.gguf", "v1.0")),
    ],
)
def test_a_name_on_the_hub(text: str, name: HubName) -> None:
    assert hub_name(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text", ["x.gguf", "a/x.gguf", "a/b/c", "./a", "a b", "", "a/b@", "a@b c", "../a/b.gguf"]
)
def test_no_name_on_the_hub(text: str) -> None:
    assert hub_name(text) is None


def test_only_what_is_read_is_fetched(tmp_path: Path, served: Hub) -> None:
    model = publish(tmp_path)
    for name in ("consolidated.safetensors", "model.fp16.safetensors", "pytorch_model.bin"):
        shutil.copy(model / "model.safetensors", model / name)
    (model / "modeling.py").write_text("# code")
    (model / "onnx").mkdir()
    (model / "onnx" / "config.json").write_text("{}")
    assert record(tmp_path, "-m", "some/model", "-v", "control") == 0
    assert served.asked.count("model.safetensors") == 1
    assert {"config.json", "tokenizer.json"} <= {*served.asked}
    assert not {"consolidated.safetensors", "model.fp16.safetensors"} & {*served.asked}
    assert not {"pytorch_model.bin", "modeling.py"} & {*served.asked}
    served.asked.clear()
    assert record(tmp_path, "-m", "some/model", "-v", "some/model") == 0
    assert served.asked == []


def publish_in_shards(tmp_path: Path) -> tuple[Path, list[str]]:
    """A repository with an index and no model.safetensors, and the names of its three shards."""
    model = publish(tmp_path)
    make_model("llama").save_pretrained(model, max_shard_size="64KB")
    (model / "model.safetensors").unlink()
    shards = sorted(file.name for file in model.glob("model-*.safetensors"))
    assert len(shards) == 3
    return model, shards


def test_of_a_repository_like_mistrals_the_shards_of_the_index(
    tmp_path: Path, served: Hub, monkeypatch
) -> None:
    """All that is fetched: neither the weights once more, nor data under the names of configs."""
    model, shards = publish_in_shards(tmp_path)
    monkeypatch.setattr("prunetui.engine.model.hub.MAX_SMALL_BYTES", 20_000)
    read = {file.name for file in model.iterdir()} - {*shards}
    for name in (
        "consolidated.safetensors",
        "model-00001-of-00001.safetensors",
        "model.fp16.safetensors",
        "pytorch_model-00001-of-00001.bin",
        "original/consolidated.00.pth",
        "original/params.json",
        "tokenizer.model.v3",
        "evaluation.json",
        "[1] log.txt",
        "large.model",
    ):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"{}" + b" " * 20_000)
    (model / "params.json").write_text("{}")
    assert record(tmp_path, "-m", "some/model", "-v", "control") == 0
    assert read == {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sorted(served.asked) == sorted([*read, *shards, "params.json"])


def test_of_shards_and_the_whole_the_whole_alone(tmp_path: Path, served: Hub) -> None:
    model, _ = publish_in_shards(tmp_path)
    make_model("llama").save_pretrained(tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "model.safetensors", model)
    assert record(tmp_path, "-m", "some/model", "-v", "control") == 0
    fetched = [name for name in served.asked if name.endswith(".safetensors")]
    assert fetched == ["model.safetensors"]


@pytest.mark.parametrize("file", ["weights/{}", "pytorch_model.bin"])
def test_an_index_of_files_that_are_not_read_fetches_none(
    file: str, tmp_path: Path, served: Hub, capsys
) -> None:
    model, shards = publish_in_shards(tmp_path)
    index = model / "model.safetensors.index.json"
    weight_map = json.loads(index.read_bytes())["weight_map"]
    renamed = {key: file.format(shard) for key, shard in weight_map.items()}
    index.write_text(json.dumps({"weight_map": renamed}))
    (model / "weights").mkdir()
    for shard in shards:
        (model / shard).rename(model / "weights" / shard)
    (model / "pytorch_model.bin").write_bytes(b"pickled")
    assert "its weight_map does not name safetensors files" in said(capsys, "-m", "some/model")
    assert not [name for name in served.asked if name.endswith((".safetensors", ".bin"))]


@pytest.mark.usefixtures("served")
def test_a_revision_of_the_model_and_of_a_variant(tmp_path: Path) -> None:
    """Revisions named by branch and by commit, in the model's name and the header."""
    publish(tmp_path)
    publish(tmp_path, "step-2", tie_word_embeddings=True)
    by_commit = f"some/model@{commit_of('step-2')}"
    assert (
        record(tmp_path, "-m", "some/model", "-v", "some/model@step-2", "-v", f"x={by_commit}") == 0
    )
    (path,) = tmp_path.glob("*.jsonl")
    trace = read_trace(path)
    assert trace.header.model.name == "some/model"
    assert [lane.name for lane in trace.header.lanes] == ["baseline", "some/model@step-2", "x"]
    assert trace.header.lanes[2].recipe == by_commit
    first, second = (drift_of(trace.steps[0], lane).kl for lane in (1, 2))
    assert first == second
    assert present(first) > 0
    assert record(tmp_path, "-m", "some/model@step-2", "-v", by_commit) == 0
    again = read_trace(tmp_path / "1.trace.jsonl")
    assert again.header.model.name == "some/model@step-2"
    assert drift_of(again.steps[0]).kl == pytest.approx(0, abs=1e-9)


def test_code_is_fetched_for_a_variant_too(tmp_path: Path, served: Hub) -> None:
    local = save_model_directory(tmp_path / "local")
    model = publish(tmp_path)
    (model / "modeling.py").write_text("# code")
    assert record(tmp_path, "-m", local, "-v", "some/model") == 0
    assert "modeling.py" not in served.asked
    assert record(tmp_path, "-m", local, "-v", "some/model", "--trust-remote-code") == 0
    assert "modeling.py" in served.asked


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    return complaint(capsys, "record", "--no-trace", *arguments)


def test_a_repository_of_gguf_files_names_them(
    tmp_path: Path, served: Hub, capsys, monkeypatch
) -> None:
    model = tmp_path / "hub" / "main" / "some" / "model"
    names = ["q4.gguf", "q8-00001-of-00002.gguf", "q8-00002-of-00002.gguf", "f16/x.gguf"]
    for name in ("README.md", *names):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    choice = "name one of them, as in some/model/f16/x.gguf: f16/x.gguf, q4.gguf, q8-00001-of-00002"
    assert f"some/model is a repository of GGUF files; {choice}.gguf" in said(
        capsys, "-m", "some/model"
    )
    assert f"some/model has no file q5.gguf; {choice}" in said(capsys, "-m", "some/model/q5.gguf")
    assert served.asked == []

    def converted(gguf: Path, _: object) -> Path:
        raise UserError(f"converts {gguf.name} {gguf.read_text()}")

    monkeypatch.setattr("prunetui.engine.model.fetch.convert_gguf", converted)
    assert "converts x.gguf f16/x.gguf" in said(capsys, "-m", "some/model/f16/x.gguf")
    assert served.asked == ["x.gguf"]
    split = "q8-00002-of-00002.gguf"
    assert "converts q8-00001-of-00002.gguf q8-00001" in said(capsys, "-m", f"some/model/{split}")
    assert sorted(served.asked[1:]) == ["q8-00001-of-00002.gguf", split]


def test_a_repository_without_safetensors_is_refused_before_weights(
    tmp_path: Path, served: Hub, capsys
) -> None:
    model = publish(tmp_path)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert (
        "some/model has no model.safetensors, and weights are read from safetensors alone; it has "
        "pytorch_model.bin"
    ) in said(capsys, "-m", "some/model")
    assert "pytorch_model.bin" not in served.asked
    (model / "config.json").unlink()
    assert "some/model@main holds no model: it has no config.json" in said(
        capsys, "-m", "some/model@main"
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("some/model@no-such", "Revision Not Found"),
        ("some/other", "Repository Not Found"),
    ],
)
def test_what_is_not_there(name: str, why: str, tmp_path: Path, served: Hub, capsys) -> None:
    publish(tmp_path)
    complained = said(capsys, "-m", name)
    assert (
        f"the Hugging Face hub did not give a model of that name ({complained[0:0]}" in complained
    )
    assert f"there is no directory {name}" in complained
    assert why in complained
    assert served.asked == []


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_hub_that_refuses(status: int, tmp_path: Path, served: Hub, capsys, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    publish(tmp_path)
    served.status = status
    complained = said(capsys, "-m", "some/model")
    assert "the Hugging Face hub did not give a model of that name" in complained
    assert str(status) in complained
    # And what is cached goes on.
    served.status = 0
    assert record(tmp_path, "-m", "some/model", "-v", "control") == 0
    served.status = status
    assert record(tmp_path, "-m", "some/model", "-v", "control") == 0


@pytest.mark.usefixtures("served")
def test_a_full_disk(tmp_path: Path, capsys, monkeypatch) -> None:
    publish(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("prunetui.engine.model.hub.snapshot_download", full)
    complained = said(capsys, "-m", "some/model")
    assert f"some/model cannot be kept in {tmp_path}/hub-cache (No space left on dev" in complained


@pytest.mark.usefixtures("served")
def test_an_index_that_is_none(tmp_path: Path, capsys) -> None:
    model = publish(tmp_path)
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weights": {}}))
    assert "its weight_map does not name safetensors files" in said(capsys, "-m", "some/model")
