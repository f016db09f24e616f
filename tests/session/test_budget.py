"""A lane per number dropped, in batches over some prompts: the figures are those of lanes alone."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.progress import Cancelled
from prunetui.engine.session import budget as budget_module
from prunetui.engine.session import session as session_module
from prunetui.engine.session.budget import Budget, BudgetRequest, equal_batches, open_budget
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.analysis.budget import Measured
from prunetui.engine.trace.analysis.lane_figures import LaneFigures, lane_figures
from prunetui.engine.trace.file import read_trace

from ..support.models import save_model_directory

PROMPTS = [("line 1", "Twelve bytes"), ("line 3", "And some more of them")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _no_bandwidth(monkeypatch) -> None:
    """Do not measure the bandwidth, which takes seconds and no test here reads."""
    monkeypatch.setattr(session_module, "read_bandwidth", lambda *_: 1e9)


def tiny_options(model: Path, **changes: Any) -> Options:
    settings: dict[str, Any] = {
        "model": str(model),
        "ignore_eos": True,
        "max_new_tokens": 26,
        "calibration_length": 32,
        "calibration_samples": 1,
    }
    return Options(**(settings | changes))


def open_tiny(
    model: Path,
    kind: Any = "attn",
    most: int | None = 3,
    prompts: list[tuple[str, str]] = PROMPTS,
    record_to: Path | None = None,
    progress: Callable[[str, float | None], None] = lambda *_: None,
    by: str | None = None,
) -> Budget:
    request = BudgetRequest(kind, most, prompts, record_to, by)
    return open_budget(tiny_options(model), request, progress)


def measured(budget: Budget) -> dict[tuple[int, int], LaneFigures]:
    """All figures by number and prompt, each of which comes once."""
    every: list[Measured] = []
    take(budget, every)
    by_place = {(one.number, one.prompt): one.figures for one in every}
    assert len(by_place) == len(every)
    return by_place


def take(budget: Budget, into: list[Measured]) -> None:
    for some in budget.measure():
        into += some


@pytest.fixture
def two_at_once(monkeypatch) -> None:
    """Let the compiled step take five rows: the baseline, and two variants of two rows."""
    monkeypatch.setattr(budget_module, "backend_for", lambda *_: SimpleNamespace(max_rows=6))


def assert_equal(
    figures: dict[tuple[int, int], LaneFigures], others: dict[tuple[int, int], LaneFigures]
) -> None:
    assert figures.keys() == others.keys()
    for place, one in figures.items():
        other = others[place]
        assert one.kl == pytest.approx(other.kl, abs=1e-6)
        for name in ("steps", "not_comparable", "first_divergence", "collapse"):
            assert getattr(one, name) == getattr(other, name), (place, name)


@pytest.mark.usefixtures("two_at_once")
def test_the_figures_are_those_of_sessions_with_one_lane(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    budget = open_tiny(tiny, record_to=folder)
    assert (budget.most, budget.noun) == (3, "attention sublayers")
    figures = measured(budget)
    alone: dict[tuple[int, int], LaneFigures] = {}
    for number in range(4):
        recipe = f"drop:attn={number}" if number else "control"
        for prompt, (_, text) in enumerate(PROMPTS):
            session = open_session(
                tiny_options(tiny, variants=(recipe,), prompt=text), None, lambda *_: None
            )
            while session.finished is None:
                session.step()
            alone[number, prompt] = lane_figures(session.trace.header, session.trace.steps, 1)
            session.close()
    assert_equal(figures, alone)
    # The model does different things, or the numbers could be anyone's.
    kls = [figures[number, 0].kl for number in range(4)]
    assert len({*kls}) == 4
    assert {one.first_divergence for one in figures.values()} > {None}
    assert all(one.steps == 26 for one in figures.values())
    files = {path.name: read_trace(path) for path in folder.iterdir()}
    assert sorted(files) == [
        f"attn-{numbers}{number}.trace.jsonl"
        for numbers in ("0-to-1", "2-to-3")
        for number in ("-2", "")
    ]
    for name, trace in files.items():
        for lane, number in enumerate([0, 1] if "0-to-1" in name else [2, 3], start=1):
            assert trace.lane_names[lane] == (f"drop:attn={number}" if number else "control")
            assert (
                lane_figures(trace.header, trace.steps, lane) == figures[number, int("-2." in name)]
            )


@pytest.mark.usefixtures("two_at_once")
def test_batches_give_what_one_batch_does(tiny: Path, tmp_path: Path) -> None:
    """The default goes up to half of what there is, and controls fill up the last batch."""
    folder = tmp_path / "traces"
    folder.mkdir()
    budget = open_tiny(tiny, "block", None, record_to=folder, by="kl")
    assert budget.most == 2
    figures = measured(budget)
    last = read_trace(folder / "block-2.trace.jsonl")
    assert last.lane_names == ["baseline", "drop:block=2,by=kl", "control"]
    dropped = last.header.lanes[1]
    assert len(dropped.dropped_attention) == len(dropped.dropped_mlp) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_module, "backend_for", lambda *_: None)
        whole = open_tiny(tiny, "block", None, by="kl")
        assert_equal(figures, measured(whole))
    assert whole.notes == budget.notes == []


def test_numbers_are_spread_over_batches_of_one_size() -> None:
    for count in range(1, 40):
        for most in (1, 2, 11, 255):
            batches = equal_batches(count, most)
            assert [n for batch in batches for n in batch.numbers] == [*range(count)]
            assert len({batch.size for batch in batches}) == 1
            assert max(len(batch.numbers) for batch in batches) <= batches[0].size <= most
            assert len(batches) == -(-count // most)


def test_where_memory_runs_out_fewer_lanes_go_on(tiny: Path, monkeypatch) -> None:
    expected = measured(open_tiny(tiny))
    tried: list[int] = []
    room = 4

    def step(session: Session, **options: Any) -> Any:
        lanes = len(session.lanes.models)
        tried.append(lanes)
        # Enough for the first prompt.
        if lanes > room and session.trace.header.prompt.text == PROMPTS[1][1]:
            raise UserError("out of memory at step 0") from MemoryError()
        return original(session, **options)

    original = Session.step
    monkeypatch.setattr(Session, "step", step)
    budget = open_tiny(tiny)
    assert_equal(measured(budget), expected)
    assert sorted({*tried}) == [3, 5]
    assert budget.notes == [
        "Memory ran out with 4 variants at once; 2 at once are decoded instead."
    ]
    room = 0
    with pytest.raises(UserError, match="out of memory at step 0"):
        measured(open_tiny(tiny, prompts=PROMPTS[1:]))


def test_a_cancelled_one_leaves_the_model_as_it_was(tiny: Path) -> None:
    """What it opens a second time gives the same to the last bit."""
    steps = 0

    def progress(stage: str, _: float | None) -> None:
        nonlocal steps
        steps += stage == "decoding 0 to 3 dropped, prompt 2 of 2"
        if steps == 5:
            steps += 1
            raise Cancelled

    budget = open_tiny(tiny, progress=progress)
    got: list[Measured] = []
    with pytest.raises(Cancelled):
        take(budget, got)
    assert [(one.number, one.prompt) for one in got] == [(number, 0) for number in range(4)]
    again = measured(budget)
    assert {place: again[place] for place in again if place[1] == 0} == {
        (one.number, one.prompt): one.figures for one in got
    }


@pytest.mark.usefixtures("two_at_once")
def test_another_text_of_the_baseline_is_said(tiny: Path, monkeypatch) -> None:
    texts = iter([[1], [2]])
    monkeypatch.setattr(budget_module, "chosen_tokens", lambda *_: next(texts))
    budget = open_tiny(tiny, prompts=PROMPTS[:1])
    measured(budget)
    assert budget.notes == [
        "The baseline's text after prompt 1 is another one beside 2 to 3 dropped than beside those "
        "before: rounding differs with the number of rows."
    ]


def test_what_cannot_be_dropped_or_read_is_a_sentence(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as too_many:
        open_tiny(tiny, "mlp", 5)
    assert str(too_many.value) == (
        "--max is 5, and the model has 4 MLP sublayers to drop; ask for at most 4"
    )
    assert open_tiny(tiny, "mlp", 4).most == open_tiny(tiny, "joint", None).most == 4
    with pytest.raises(UserError, match=r"^line 7: the prompt has "):
        open_tiny(tiny, prompts=[*PROMPTS, ("line 7", "long " * 100)])
    refused = save_model_directory(tmp_path / "opt", "opt", do_layer_norm_before=False)
    with pytest.raises(UserError, match="this opt model does not take layer dropping"):
        open_tiny(refused)
