"""Forced tokens, branches, and the context in which variants have two lanes."""

import random
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.file import TraceWriter, read_trace
from prunetui.engine.trace.records import Branch, Drift, Step, Switch
from prunetui.engine.trace.trace import Origin, Trace

from ..support.blames import make_blame
from ..support.models import save_model_directory
from ..support.traces import make_header, make_step

STEPS = 10
FORCED = 65


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models whose caches can be cropped (llama) and cannot (gemma2's window, lfm2's state)."""
    folder = tmp_path_factory.mktemp("models")
    return {name: save_model_directory(folder / name, name) for name in ("llama", "gemma2", "lfm2")}


def open_tiny(model: Path, record_to: Path | None = None, **options) -> Session:
    settings = {
        "model": str(model),
        "variants": ("drop:attn=[1]", "drop:mlp=[0,2]"),
        "prompt": "Twelve bytes",
        "ignore_eos": True,
        "max_new_tokens": STEPS,
    }
    return open_session(Options(**(settings | options)), record_to, lambda *_: None)


def run(session: Session) -> list[Step]:
    while session.finished is None:
        session.step()
    return session.trace.steps


def tokens(steps: list[Step]) -> list[list[int]]:
    return [[token.token for token in step.lanes if token] for step in steps]


def assert_equal(got: list[Drift | None], expected: list[Drift | None]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one is not None
        assert other is not None
        assert msgspec.structs.asdict(one) == pytest.approx(msgspec.structs.asdict(other), abs=2e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "lfm2"])
def test_both_is_free_and_forced_at_once(models, family: str) -> None:
    free, forced, both = (
        run(open_tiny(models[family], context=context)) for context in ("free", "forced", "both")
    )
    assert tokens(both) == tokens(free)
    assert [step.local for step in free] == [None] * STEPS
    for ours, theirs, alone in zip(both, free, forced, strict=True):
        assert_equal(ours.drift, theirs.drift)
        assert ours.local is not None
        assert_equal(ours.local, alone.drift)
        assert ours.local_layers is not None
        for layers, expected in zip(ours.local_layers, alone.layers, strict=True):
            assert layers == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", "float32"), ("llama", "bfloat16"), ("gemma2", "float32"), ("lfm2", "float32")],
)
def test_a_branch_has_the_numbers_of_a_fresh_run(models, family: str, dtype: str) -> None:
    """To the last digit, after any rewinds, branches and switches."""
    chance = random.Random(2)
    session = open_tiny(models[family], dtype=dtype)
    run(session)
    for _ in range(12):
        match chance.randrange(4):
            case 0:
                session.rewind(chance.randrange(len(session.trace.steps) + 1))
            case 1:
                at = chance.randrange(min(len(session.trace.steps), STEPS - 1) + 1)
                session.force(at, {chance.randrange(3): chance.randrange(1, 257)})
            case 2:
                session.switch(chance.randrange(len(session.trace.branches)))
            case 3 if session.trace.steps:
                session.read(chance.randrange(len(session.trace.steps)))
        for _ in range(chance.randrange(4)):
            if session.finished is None:
                session.step()
    assert len(session.trace.branches) > 2
    fresh = open_tiny(models[family], dtype=dtype)
    for steps in session.trace.branches:
        fresh.restart()
        for step in steps:
            lanes = enumerate(step.lanes)
            again = fresh.step({n: token.token for n, token in lanes if token and token.forced})
            assert (again.lanes, again.drift, again.local, again.layers) == (
                *(step.lanes, step.drift, step.local, step.layers),
            )


def test_contexts_change_in_a_session(models) -> None:
    session = open_tiny(models["llama"], context="free")
    expected = tokens(run(session))
    session.restart(context="both")
    assert tokens(run(session)) == expected
    assert session.trace.steps[-1].local is not None
    session.restart(context="free")
    assert tokens(run(session)) == expected
    assert session.trace.steps[-1].local is None


@pytest.mark.parametrize("context", ["free", "both"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "lfm2"])
def test_a_forced_token_begins_a_branch_and_both_go_on(models, family: str, context: str) -> None:
    whole = tokens(run(open_tiny(models[family], context=context)))
    session = open_tiny(models[family], context=context)
    for _ in range(7):
        session.step()
    step = session.force(4, {1: FORCED})
    assert [token is not None and token.forced for token in step.lanes] == [False, True, False]
    run(session)
    forced = tokens(session.trace.steps)
    assert forced[:4] == whole[:4]
    assert forced[4] == [whole[4][0], FORCED, whole[4][2]]
    # Lanes read nothing of each other: the others decode what they did.
    assert [row[::2] for row in forced] == [row[::2] for row in whole]
    session.switch(0)
    assert tokens(session.trace.steps) == whole[:7]
    assert tokens(run(session)) == whole
    session.switch(1)
    assert tokens(session.trace.steps) == forced
    session.rewind(6)
    assert tokens(run(session)) == forced


def test_a_forced_token_is_read_as_if_it_had_been_in_the_prompt(models) -> None:
    alone = open_tiny(models["llama"], variants=(), raw=True, prompt="Twelve bytes!")
    session = open_tiny(models["llama"], variants=(), raw=True)
    session.force(0, {0: alone.trace.header.prompt.tokens[-1]})
    assert tokens(run(session))[1:] == tokens(run(alone))[: STEPS - 1]


def test_what_cannot_be_forced(models, monkeypatch) -> None:
    session = open_tiny(models["llama"], context="forced")
    session.step()
    with pytest.raises(UserError, match="every lane reads the baseline's tokens"):
        session.force(0, {1: FORCED})
    session = open_tiny(models["llama"], ignore_eos=False)
    chosen = session.step().lanes[1]
    assert chosen is not None
    monkeypatch.setattr(
        "prunetui.engine.session.step_builder.end_tokens", lambda *_: {chosen.token}
    )
    session = open_tiny(models["llama"], ignore_eos=False)
    session.step()
    with pytest.raises(UserError, match=r"drop:attn=\[1\] has ended before step 1"):
        session.force(1, {1: FORCED})
    assert len(session.trace.branches) == 1


def test_forcing_what_a_branch_has_begins_no_other(models, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(models["llama"], path)
    whole = run(session)
    own = tokens(whole)[4]
    for forced in ({1: own[1]}, dict(enumerate(own))):
        with pytest.raises(UserError, match="at step 4 already; force another token"):
            session.force(4, forced)
    assert session.trace.branches == [whole]
    session.force(4, {1: FORCED})
    session.step()
    session.switch(0)
    step = session.force(4, {1: FORCED})
    assert session.trace.branch == 1
    assert step is session.trace.steps[4]
    assert [len(steps) for steps in session.trace.branches] == [STEPS, 6]
    session.close()
    events = [type(event) for event in read_trace(path).events()]
    assert events.count(Branch) == 1


def test_where_no_step_can_follow_nothing_is_forced(models, tmp_path: Path) -> None:
    session = open_tiny(models["llama"], tmp_path / "a.trace.jsonl")
    run(session)
    with pytest.raises(UserError, match=f"nothing can be forced there: {STEPS} new tokens are"):
        session.force(STEPS, {0: FORCED})
    session.close()
    assert len(read_trace(tmp_path / "a.trace.jsonl").branches) == 1


def test_branches_are_recorded(models, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(models["llama"], path)
    for _ in range(4):
        session.step()
    session.force(2, {0: FORCED, 1: FORCED, 2: FORCED})
    session.step()
    session.switch(0)
    session.step()
    session.close()
    read = read_trace(path)
    assert read.branches == session.trace.branches
    assert read.origins == [None, Origin(parent=0, at=2)]
    assert (read.branch, len(read.steps)) == (0, 5)


def test_a_trace_keeps_each_branch() -> None:
    trace = Trace(make_header())
    for number in range(5):
        trace.append(make_step(number))
    root = trace.steps
    trace.apply(Branch(parent=0, at=2))
    assert (trace.branch, trace.steps) == (1, root[:2])
    trace.append(make_step(2))
    trace.apply(Switch(to=0))
    assert trace.steps is root
    trace.rewind(1)
    assert [len(steps) for steps in trace.branches] == [1, 3]
    assert asdict(trace.origins[1]) == {"parent": 0, "at": 2}  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Branch(parent=1, at=0), "branch 0 is open, not 1"),
        (Branch(parent=0, at=2), "cannot branch off after 2 of 1 steps"),
        (Switch(to=1), "there is no branch 1"),
    ],
)
def test_a_file_with_an_impossible_branch_is_damaged(tmp_path: Path, event, message: str) -> None:
    path = tmp_path / "a.trace.jsonl"
    writer = TraceWriter(path, make_header())
    writer.write(make_step(0))
    writer.write(event)
    writer.close()
    with pytest.raises(UserError, match=message):
        read_trace(path)


@pytest.mark.parametrize("context", ["free", "both"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_resumed_session_goes_on_as_if_uninterrupted(
    models, tmp_path: Path, family: str, context: str
) -> None:
    whole = run(open_tiny(models[family], context=context))
    session = open_tiny(models[family], tmp_path / "a.trace.jsonl", context=context)
    for _ in range(4):
        session.step()
    session.force(2, {1: FORCED})
    session.step()
    forced = tokens(run(session))
    session.switch(0)
    session.close()
    old = read_trace(tmp_path / "a.trace.jsonl")
    assert old.header.options is not None
    old.add_blame(1, msgspec.structs.replace(make_blame(old.header.model.layers), in_text=None))
    session = open_session(old.header.options, tmp_path / "b.trace.jsonl", lambda *_: None, old)
    assert session.trace.branches == old.branches
    resumed = run(session)
    assert tokens(resumed) == tokens(whole)
    for ours, theirs in zip(resumed, whole, strict=True):
        assert_equal(ours.drift, theirs.drift)
        assert [token and token.text for token in ours.lanes] == [
            token and token.text for token in theirs.lanes
        ]
    session.switch(1)
    assert tokens(session.trace.steps) == forced
    session.close()
    again = read_trace(tmp_path / "b.trace.jsonl").branches
    assert again == session.trace.branches
    assert [len(steps[1].blames) for steps in again] == [1, 1]


@pytest.mark.parametrize("family", ["llama", "gemma2", "lfm2"])
def test_in_bfloat16_a_step_decoded_again_is_the_same(models, tmp_path: Path, family: str) -> None:
    """To the last bit: after a rewind, on another branch's caches, and in another session."""
    given = {"dtype": "bfloat16", "max_new_tokens": 40}
    whole = run(open_tiny(models[family], **given))
    session = open_tiny(models[family], tmp_path / "a.trace.jsonl", **given)
    for _ in range(30):
        session.step()
    session.force(5, {0: FORCED})
    for _ in range(20):
        session.step()
    session.switch(0)
    session.rewind(29)
    session.step()
    session.close()
    old = read_trace(tmp_path / "a.trace.jsonl")
    assert old.header.options is not None
    resumed = open_session(old.header.options, None, lambda *_: None, old)
    for ours, theirs in zip(run(resumed), whole, strict=True):
        assert (ours.lanes, ours.drift, ours.layers) == (theirs.lanes, theirs.drift, theirs.layers)
    resumed.close()


def test_what_cannot_be_resumed(models) -> None:
    trace = open_tiny(models["llama"]).trace
    options = trace.header.options
    assert options is not None
    for changed, message in (
        ({"prompt": "Another"}, "the prompt's tokens are not the trace's"),
        ({"variants": ("drop:attn=[2]", "drop:mlp=[0,2]")}, "do not drop what they dropped"),
        ({"model": str(models["gemma2"])}, "the file is of llama"),
    ):
        with pytest.raises(UserError, match=message):
            open_session(msgspec.structs.replace(options, **changed), None, lambda *_: None, trace)


def test_branches_that_were_decoded_again_are_made_again_too() -> None:
    """Of parents that no longer have the steps that a child took along, and of a child that was
    taken back past where it left its parent."""
    trace = Trace(make_header())
    for number in range(8):
        trace.append(make_step(number))
    trace.fork(3)
    for number in range(3, 8):
        trace.append(msgspec.structs.replace(make_step(number), seconds=9.0))
    trace.fork(6)
    trace.append(make_step(6))
    trace.switch(1)
    trace.rewind(0)
    for number in range(7):
        trace.append(make_step(number))
    assert trace.origins == [None, Origin(0, 0), Origin(1, 6)]
    again = Trace(trace.header)
    for event in trace.events():
        again.apply(event)
    assert (again.branches, again.branch) == (trace.branches, trace.branch)
    assert again.branches[2][3] != again.branches[1][3]


def test_a_trace_is_made_again_of_its_events() -> None:
    trace = Trace(make_header())
    for number in range(5):
        trace.append(make_step(number))
    trace.fork(3)
    trace.append(make_step(3))
    trace.switch(0)
    trace.fork(4)
    trace.switch(0)
    trace.rewind(2)
    again = Trace(trace.header)
    for event in trace.events():
        again.apply(event)
    assert (again.branches, again.branch) == (trace.branches, trace.branch)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_look_back_on_one_branch_leaves_the_other_as_it_is(models, family: str) -> None:
    """The caches hold the branch that was decoded last, whichever is looked at."""
    session = open_tiny(models[family])
    run(session)
    session.force(3, {0: FORCED, 1: FORCED, 2: FORCED})
    expected = [*run(session)]
    session.rewind(7)
    session.step()
    session.switch(0)
    session.read(4)
    session.switch(1)
    for step, known in zip(run(session)[7:], expected[7:], strict=True):
        assert (step.lanes, step.drift) == (known.lanes, known.drift)
