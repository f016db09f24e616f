"""An evaluation from options to its file: killed, resumed, and refused where it does not fit."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.evaluation import evaluator
from prunetui.engine.evaluation.evaluator import evaluate
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.reader import LaneReader
from prunetui.engine.evaluation.requests import Request
from prunetui.engine.options import Options
from prunetui.engine.results.file import ResultsWriter, read_results
from prunetui.engine.results.records import Answer, End, Item, Metric, Settings, Task
from prunetui.engine.results.results import Results
from transformers import AutoModelForCausalLM

from ..support.models import save_model_directory

ITEMS, CHUNK = 10, 4
VARIANTS = ("drop:attn=[1]", "control", "magnitude:0.5")


class RatedTexts:
    """Texts of different lengths, rated; the bits depend on the batch that they are read in."""

    chunk = CHUNK

    def __init__(self, lanes: EvaluatedLanes, reader: LaneReader, digest: str = "a") -> None:
        self._reader = reader
        self._lanes = len(lanes.models)
        self.record = Task(
            name="texts",
            kind="likelihood",
            items=ITEMS,
            total=ITEMS,
            metrics=[Metric(name="ll")],
            version="1",
            digest=digest,
        )

    def answer(self, first: int, last: int, report: Callable[[float], None]) -> list[Item]:
        texts = [tuple(range(1, 4 + 3 * index)) for index in range(first, last)]
        ratings = self._reader.rate([Request(text, (7,)) for text in texts], report)
        return [
            Item(
                task="texts",
                index=first + index,
                hash="",
                question="",
                gold="",
                contexts=[""],
                tokens=[*text],
                answers=[Answer(scores={"ll,none": value}) for value in rating.logprobs],
                drift=[*rating.drift],
            )
            for index, (text, rating) in enumerate(zip(texts, ratings, strict=True))
        ]

    def end(self, items: list[Item]) -> End:
        return End(task="texts", scores=[{"items,none": float(len(items))}] * self._lanes)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        evaluator, "open_tasks", lambda _, lanes, reader, __: [RatedTexts(lanes, reader)]
    )
    return save_model_directory(tmp_path / "model")


def run(
    model: Path,
    file: Path,
    *,
    report: evaluator.Report = lambda *_: None,
    resume: bool = False,
    **options: Any,
) -> Results:
    settings = {"model": str(model), "variants": VARIANTS, "dtype": "float32"}
    return evaluate(
        Options(**(settings | options)),
        Settings(batch_size=3),
        file,
        lambda *_: None,
        report,
        resume=resume,
    )


def items_of(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines()[1:]


def test_all_lanes_answer_every_item(model: Path, tmp_path: Path) -> None:
    seen = []
    results = run(model, tmp_path / "a", report=lambda _, done: seen.append(done))
    assert results == read_results(tmp_path / "a")
    assert [item.index for item in results.items["texts"]] == [*range(ITEMS)]
    assert seen == sorted(seen)
    assert seen[-1] == ITEMS
    assert results.complete
    header = results.header
    assert [lane.name for lane in header.lanes] == ["baseline", *VARIANTS]
    same, *others = header.fingerprints
    assert [fingerprint == same for fingerprint in others] == [True, True, False]
    assert 0 < header.noise_floor < 1e-4
    for item in results.items["texts"]:
        baseline, dropped, control, _ = (answer.scores["ll,none"] for answer in item.answers)
        assert control == baseline != dropped
        drift = item.drift[1]
        assert drift is not None
        assert (drift.kl, drift.top1) == (0.0, True)


@pytest.mark.parametrize("cut", [0, 5, -3])
def test_a_killed_evaluation_goes_on_to_the_same_bytes(
    model: Path, tmp_path: Path, cut: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(model, whole)

    class KilledError(BaseException):
        pass

    def kill(_: Results, done: float) -> None:
        if done > 2 * CHUNK:
            raise KilledError

    with pytest.raises(KilledError):
        run(model, killed, report=kill)
    content = killed.read_bytes()
    assert items_of(killed) == items_of(whole)[: 2 * CHUNK]
    # A kill may end the file anywhere: after a line, or in one, so that half a chunk is there.
    killed.write_bytes(content if cut == 0 else content[: content.index(b'"index":5') + cut])
    results = run(model, killed, resume=True)
    assert items_of(killed) == items_of(whole)
    assert results == read_results(killed)
    before = killed.read_bytes()
    assert run(model, killed, resume=True).complete
    assert killed.read_bytes() == before


def test_a_full_disk_is_said_and_the_evaluation_goes_on_later(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, file = tmp_path / "whole", tmp_path / "full"
    run(model, whole)
    write = ResultsWriter.write

    def until_full(self: ResultsWriter, lines: Any) -> None:
        if getattr(lines[0], "index", 0) >= CHUNK:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, lines)

    with monkeypatch.context() as patch:
        patch.setattr(ResultsWriter, "write", until_full)
        with pytest.raises(UserError, match="No space left on device; once that is mended"):
            run(model, file)
    assert items_of(file) == items_of(whole)[:CHUNK]
    run(model, file, resume=True)
    assert items_of(file) == items_of(whole)
    with pytest.raises(UserError, match="has 4 lanes and memory has room for 3 now"):
        run(model, file, resume=True, variants=VARIANTS[1:])


def test_what_does_not_fit_the_file_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    run(model, file)
    before = file.read_bytes()

    def refused(**options: Any) -> str:
        with pytest.raises(UserError) as refusal:
            run(model, file, resume=True, **options)
        assert file.read_bytes() == before
        return str(refusal.value)

    assert "computed in float32 and this is bfloat16; --dtype float32" in refused(dtype="bfloat16")
    other = ("drop:attn=[2]", *VARIANTS[1:])
    assert "drop:attn=[2] drops other sublayers than when" in refused(variants=other)
    sparser = (*VARIANTS[:2], "magnitude:0.6")
    assert "magnitude:0.6 drops other" not in refused(variants=sparser)
    monkeypatch.setattr(
        evaluator,
        "open_tasks",
        lambda _, lanes, reader, __: [RatedTexts(lanes, reader, digest="b")],
    )
    assert "task texts of" in (sentence := refused())
    assert "its items have changed" in sentence
    changed = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        changed.model.layers[2].mlp.up_proj.weight.mul_(1.01)
    changed.save_pretrained(model)
    assert "has other weights and cannot go on with it; -m names where" in refused()
