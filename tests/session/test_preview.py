"""Numbers of the token that follows the prompt, before a step is decoded."""

from pathlib import Path

import msgspec
import pytest
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Step
from prunetui.engine.trace.trace import Trace

from ..support.models import save_model_directory

FORCED = 65


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save_model_directory(folder / name, name) for name in ("llama", "gemma2")}


def open_tiny(
    model: Path, record_to: Path | None = None, resume: Trace | None = None, **options
) -> Session:
    settings = {
        "model": str(model),
        "variants": ("drop:attn=[1]", "drop:mlp=[0,2]"),
        "prompt": "Twelve bytes",
        "ignore_eos": True,
        "max_new_tokens": 4,
    }
    return open_session(Options(**(settings | options)), record_to, lambda *_: None, resume)


def numbers(step: Step | None) -> Step:
    """A step without what its decoding costs, and without a lens."""
    assert step is not None
    return msgspec.structs.replace(step, seconds=0.0, memory=0, lens=None)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("llama", {"dtype": "bfloat16", "context": "both", "answers": ("x", "y")}),
        ("llama", {"temperature": 1.5, "seed": 3, "top_p": 0.9, "lens": True}),
        ("gemma2", {"temperature": 0.7, "context": "forced", "max_new_tokens": 1}),
    ],
)
def test_the_preview_has_the_numbers_of_the_step_that_follows(models, family, options) -> None:
    session = open_tiny(models[family], **options)
    preview = session.trace.preview
    assert session.trace.steps == []
    assert numbers(preview) == numbers(session.step())
    assert session.trace.preview is preview


def test_step_0_reads_nothing_again(models, monkeypatch) -> None:
    passes: list[str] = []
    for name in ("prefill", "advance"):
        stock = getattr(Lockstep, name)

        def counted(self, *arguments, stock=stock, name=name):
            passes.append(name)
            return stock(self, *arguments)

        monkeypatch.setattr(Lockstep, name, counted)
    session = open_tiny(models["llama"])
    while_opening = list(passes)
    session.step()
    assert passes == while_opening
    session.step()
    assert passes == [*while_opening, "advance"]


def test_a_preview_is_no_step_of_the_file(models, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(models["llama"], path, keep=("h",))
    assert len(path.read_text().splitlines()) == 1
    assert read_trace(path).preview is None
    assert session.step().block == 0
    session.close()
    assert len(read_trace(path).steps) == 1


def test_every_new_trace_has_its_own(models) -> None:
    session = open_tiny(models["llama"])
    first = session.trace.preview
    session.restart(prompt="Another")
    other = session.trace.preview
    assert numbers(other) != numbers(first)
    assert numbers(other) == numbers(session.step())
    session.set_variants(["drop:mlp=[1]"])
    assert len(numbers(session.trace.preview).lanes) == 2
    session.step()
    session.restart()
    assert session.trace.steps == []
    assert numbers(session.trace.preview) == numbers(session.step())


def test_a_resumed_session_has_one_too(models) -> None:
    before = open_tiny(models["llama"])
    before.step()
    before.step()
    session = open_tiny(models["llama"], resume=before.trace)
    assert numbers(session.trace.preview) == numbers(session.trace.steps[0])
    text = session.trace.text(0)
    session.step()
    assert session.trace.text(0).startswith(text)


def test_a_token_forced_before_any_step_begins_no_branch(models, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(models["llama"], path)
    preview = session.trace.preview
    assert preview is not None
    step = session.force(0, {1: FORCED})
    assert [token and (token.token, token.forced) for token in step.lanes] == [
        (preview.lanes[0] and preview.lanes[0].token, False),
        (FORCED, True),
        (preview.lanes[2] and preview.lanes[2].token, False),
    ]
    assert step.candidates == preview.candidates
    session.close()
    assert [len(steps) for steps in read_trace(path).branches] == [1]
