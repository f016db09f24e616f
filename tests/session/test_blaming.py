"""Blames that a session is asked for: beside the steps that it recorded, and as if it had not."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from prunetui.engine.blame import in_text
from prunetui.engine.errors import UserError
from prunetui.engine.options import Context, Options
from prunetui.engine.session import session as session_module
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.blame import BlamedTokens, Causes
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Step

from ..support.models import changed, save_model_directory
from ..support.pretended_graphs import take_static_steps
from ..support.steps import decode_all, drift_of, local_of, present, token_of

VARIANTS = ("drop:attn=[1,2]", "magnitude:0.5", "drop:mlp=[0]")
WHAT: tuple[Causes, ...] = ("parts", "text", "depth")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def _no_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "read_bandwidth", lambda *_: 1e9)


def opened(model: Path, record_to: Path | None = None, **changes: Any) -> Session:
    settings: dict[str, Any] = {
        "variants": VARIANTS,
        "prompt": "Twelve bytes",
        "ignore_eos": True,
        "max_new_tokens": 8,
        "context": "both",
    }
    options = Options(model=str(model), **settings | changes)
    return open_session(options, record_to, lambda *_: None)


def numbers(steps: list[Step]) -> list[tuple[Any, ...]]:
    return [(s.step, s.lanes, s.candidates, s.drift, s.layers, s.local) for s in steps]


@pytest.mark.parametrize("context", ["both", "forced"])
def test_the_lane_as_it_is_has_the_kl_of_the_recorded_step(context: Context, model: Path) -> None:
    session = opened(model, context=context, temperature=0.8)
    steps = decode_all(session)
    for number, lane in ((0, 1), (5, 2), (7, 3)):
        step = steps[number]
        recorded = (local_of if context == "both" else drift_of)(step, lane)
        blame = session.blame(number, lane, "baseline", "parts")
        assert blame.pruned.kl == pytest.approx(recorded.kl, rel=1e-4, abs=1e-6)
        assert (blame.pruned.token == blame.baseline.token) == recorded.top1
        assert blame.baseline.text in step.candidates.texts
    if context == "both":
        own = session.blame(6, 2, "lane", "parts")
        other = session.blame(6, 2, "baseline", "parts")
        assert token_of(steps[5], 2).token != token_of(steps[5]).token
        assert own.pruned.kl != other.pruned.kl
        assert session.trace.steps[6].blames == [own, other]
    session.close()


@pytest.mark.parametrize("static", [False, True])
def test_a_session_decodes_on_as_if_nothing_had_been_blamed(
    static: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every branch, after every cause, and without reading the prompt again."""
    if static:
        take_static_steps(monkeypatch)

    def used(session: Session, *, blames: bool) -> list[list[tuple[Any, ...]]]:
        seen = []

        def go_on(count: int) -> None:
            for _ in range(count):
                session.step(ahead=static)
            if blames:
                lane = len(seen) % 3
                session.blame(len(session.trace.steps) - 1, 1 + lane, "lane", WHAT[lane])
            seen.append(numbers(session.trace.steps))

        go_on(4)
        go_on(1)
        session.force(2, {1: (token_of(session.trace.steps[2], 1).token + 1) % 250})
        go_on(2)
        session.switch(0)
        go_on(1)
        return seen

    plain = opened(model, graphs=static)
    expected = used(plain, blames=False)
    path = tmp_path / "a.trace.jsonl"
    session = opened(model, path, graphs=static)
    assert session.lanes.lockstep.static == static
    prefills = session.lanes.lockstep.prefill_count
    assert used(session, blames=True) == expected
    assert session.lanes.lockstep.prefill_count == prefills
    plain.close()
    session.close()
    assert read_trace(path).branches == session.trace.branches


def test_more_causes_are_added_to_a_blame(model: Path) -> None:
    session = opened(model)
    decode_all(session)
    parts = session.blame(4, 1, "baseline", "parts")
    assert (parts.in_text, parts.in_depth) == (None, None)
    depth = session.blame(4, 1, "baseline", "depth")
    assert depth.in_depth is not None
    assert (depth.parts, depth.in_text) == (parts.parts, None)
    text = session.blame(4, 1, "baseline", "text")
    assert text.in_text is not None
    assert (text.parts, text.in_depth) == (parts.parts, depth.in_depth)
    assert text.in_text.prompt == len(session.trace.header.prompt.tokens)
    assert text.in_text.tried[-1].position == text.in_text.prompt + 3
    assert parts.seconds < depth.seconds < text.seconds
    assert session.trace.steps[4].blames == [text]
    again = session.blame(4, 1, "baseline", "parts")
    assert (again.in_text, again.in_depth) == (None, None)
    # Parts come first.
    assert session.blame(3, 1, "baseline", "text").parts
    session.close()


def test_what_cannot_be_blamed_is_said(model: Path, tmp_path: Path) -> None:
    shallow = save_model_directory(tmp_path / "shallow", num_hidden_layers=3)
    session = opened(model, variants=("drop:attn=[1]", "control", str(shallow)), context="free")
    steps = decode_all(session)

    def refused(number: int, lane: int, tokens: BlamedTokens, sentence: str) -> None:
        for what in WHAT:
            with pytest.raises(UserError, match=re.escape(sentence)):
                session.blame(number, lane, tokens, what)

    refused(8, 1, "baseline", "there is no step 8 to blame; the steps are 0 to 7")
    refused(-1, 1, "baseline", "there is no step -1 to blame")
    refused(1, 0, "baseline", "the baseline prunes nothing, so there is nothing to blame")
    refused(1, 4, "baseline", "there is no lane 4 to blame; the last one is 3")
    refused(1, 2, "lane", "prunes nothing, so there is nothing to blame")
    refused(1, 3, "baseline", "has 3 layers and the baseline 4")
    assert session.trace.steps == steps
    session.restart(context="forced")
    refused(0, 1, "baseline", "there is no step 0 to blame; nothing is decoded yet")
    session.step()
    refused(0, 1, "lane", "in a forced context drop:attn=[1] reads the baseline's tokens")
    assert session.blame(0, 1, "baseline", "parts").parts
    session.close()


def test_a_lane_that_has_ended_and_logits_that_are_no_numbers_are_said(model: Path) -> None:
    broken = changed(
        model, "broken", change=lambda name, x: x.fill_(float("nan")) if "lm_head" in name else x
    )
    session = opened(model, variants=("drop:attn=[1]", str(broken)), ignore_eos=False)
    session.step()
    session.step({1: 0})
    session.step()
    with pytest.raises(
        UserError, match=r"drop:attn=\[1\] has ended before step 2; blame an earlier"
    ):
        session.blame(2, 1, "lane", "parts")
    # What it would do on the baseline's tokens is known.
    assert session.blame(2, 1, "baseline", "parts").pruned.kl == pytest.approx(
        local_of(session.trace.steps[2], 1).kl, rel=1e-4, abs=1e-6
    )
    before = [*session.trace.steps]
    with pytest.raises(UserError, match="logits of the lane after these tokens are not numbers"):
        session.blame(1, 2, "baseline", "text")
    assert session.trace.steps == before
    session.close()


def test_memory_that_runs_out_is_a_sentence_and_the_session_goes_on(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(model)
    expected = numbers(decode_all(session))
    session.rewind(5)
    with monkeypatch.context() as patch:

        def full(*_: object, **_more: object) -> None:
            raise MemoryError

        patch.setattr("prunetui.engine.blame.cached_text.read", full)
        with pytest.raises(UserError, match=r"out of memory while drop:attn=\[1,2\] was blamed"):
            session.blame(4, 1, "baseline", "text")
    assert session.trace.steps[4].blames == []
    assert numbers(decode_all(session)) == expected
    session.close()


@pytest.mark.slow
@pytest.mark.user_cache
def test_bisection_on_the_demo_finds_what_trying_every_position_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = Options(variants=("drop:attn=8",), context="both", max_new_tokens=16)
    session = open_session(options, None, lambda *_: None)
    steps = decode_all(session)
    moved = [step.step for step in steps[1:] if not local_of(step).top1]
    boundaries = 0
    for number in moved[:3]:
        bisected = present(session.blame(number, 1, "baseline", "text").in_text)
        with monkeypatch.context() as patch:
            patch.setattr(in_text, "ROWS", 10_000)
            blame = session.blame(number, 1, "baseline", "text")
        scanned = present(blame.in_text)
        returns = [tried.next.chooses(blame.baseline.token) for tried in scanned.tried]
        if sum(a != b for a, b in itertools.pairwise(returns)) <= 1:
            assert bisected.latest == scanned.latest
            boundaries += len(returns) > 2
        elif bisected.latest is not None:
            # One of several boundaries.
            assert returns[bisected.latest : bisected.latest + 2] == [True, False]
    assert boundaries
    session.close()
