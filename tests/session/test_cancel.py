"""Long work that is cancelled at any of its reports: the session goes on as if none was asked."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.out_of_memory import guard_memory
from prunetui.engine.progress import Cancelled
from prunetui.engine.session import session as session_module
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Step

from ..support.models import save_model_directory

VARIANTS = ("drop:attn=[1]", "wanda:0.5")
STEPS = 6
BEFORE = 4
"""Steps decoded before the work that is cancelled."""


class Canceller:
    """Progress that cancels from report number `at` on, as a front end does."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.reports: list[tuple[str, float | None]] = []

    def __call__(self, text: str, fraction: float | None) -> None:
        self.reports.append((text, fraction))
        if self.at is not None and len(self.reports) > self.at:
            raise Cancelled


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(autouse=True)
def _no_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "read_bandwidth", lambda *_: 1e9)


def opened(model: Path, progress: Canceller, record_to: Path | None = None) -> Session:
    options = Options(
        model=str(model),
        variants=VARIANTS,
        prompt="Twelve bytes",
        ignore_eos=True,
        max_new_tokens=STEPS,
        context="free",
        calibration_length=32,
        calibration_samples=2,
    )
    return open_session(options, record_to, progress)


def numbers(steps: list[Step]) -> list[tuple]:
    return [(s.step, s.lanes, s.candidates, s.drift, s.layers, s.local) for s in steps]


def rest(session: Session) -> list[tuple]:
    while session.finished is None:
        session.step()
    return numbers(session.trace.steps)


COMMANDS: dict[str, Callable[[Session], object]] = {
    "other variants": lambda session: session.set_variants(["sparsegpt:0.5", "drop:mlp=2"]),
    "no variants": lambda session: session.set_variants([]),
    "a prompt": lambda session: session.restart(prompt="Another, of more tokens than the first"),
    "a context": lambda session: session.restart(context="forced"),
    "the layers": lambda session: session.read(1),
    "importance": Session.importance,
    "where in the text": lambda session: session.blame(2, 1, "lane", "text"),
    "where in depth": lambda session: session.blame(2, 2, "baseline", "depth"),
    "a step": Session.step,
    "force": lambda session: session.force(2, {1: 7}),
}


def ends_of_stages(reports: list[tuple[str, float | None]]) -> list[int]:
    """Indices of the first and the last report of each stage."""
    texts = [text for text, _ in reports]
    firsts = [at for at, text in enumerate(texts) if at == 0 or texts[at - 1] != text]
    return sorted({*firsts, *(at - 1 for at in firsts[1:]), len(texts) - 1})


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "where in depth" else name
        for name in COMMANDS
    ],
)
def test_wherever_it_is_cancelled_the_session_goes_on_as_before(
    command: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(session: Session, name: str) -> None:
        # Rankings of one attempt must not shorten the next.
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        # As if another text were in the caches: the steps before are read again.
        session.lanes.lockstep.prefill_count += 1
        progress.reports.clear()
        COMMANDS[command](session)

    progress = Canceller()
    whole = opened(model, progress)
    expected = rest(whole)
    whole.rewind(BEFORE)
    run(whole, "whole")
    reports = [*progress.reports]

    path = tmp_path / "a.trace.jsonl"
    session = opened(model, progress, path)
    while len(session.trace.steps) < BEFORE:
        session.step()
    lanes, lockstep = session.lanes, session.lanes.lockstep
    trace, steps = session.trace, [*session.trace.steps]
    for at in ends_of_stages(reports):
        progress.at = at
        with pytest.raises(Cancelled):
            run(session, str(at))
        assert progress.reports == reports[: at + 1]
        progress.at = None
        assert session.trace is trace
        assert (trace.steps, trace.branch, len(trace.branches)) == (steps, 0, 1)
        assert session.lanes is lanes
        assert lanes.lockstep is lockstep
        session.step()
        assert numbers(session.trace.steps) == expected[: BEFORE + 1]
        session.rewind(BEFORE)
    assert rest(session) == expected
    session.close()
    assert numbers(read_trace(path).steps) == expected
    assert [*tmp_path.glob("*.jsonl")] == [path]


def test_nothing_that_was_built_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: weakref.WeakSet[WeightGroup] = weakref.WeakSet()
    init = WeightGroup.__init__

    def register(group: WeightGroup, *args: object, **kwargs: object) -> None:
        init(group, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        built.add(group)

    monkeypatch.setattr(WeightGroup, "__init__", register)
    session = opened(model, progress := Canceller())
    before = {*built}
    progress.reports.clear()
    # In the second of two prunings.
    progress.at = 40
    with pytest.raises(Cancelled):
        session.set_variants(["magnitude:0.3", "sparsegpt:0.5"])
    assert progress.reports[-1][0] == "applying sparsegpt:0.5"
    gc.collect()
    assert {*built} == before


@pytest.mark.parametrize(("error", "after"), [(Cancelled, Cancelled), (ValueError, UserError)])
def test_it_is_no_lack_of_memory_although_one_is_being_handled(
    error: type[BaseException], after: type[BaseException]
) -> None:
    with pytest.raises(after), guard_memory("out of memory"):
        raise error from MemoryError()
