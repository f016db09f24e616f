"""Sessions of static steps, launched one by one or captured, against those of eager ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.decode.fixed_cache import fixed_cache_bytes
from prunetui.engine.decode.static_llama import StaticLlamaStep
from prunetui.engine.decode.static_steps import StaticSteps
from prunetui.engine.errors import UserError
from prunetui.engine.options import Context, Options
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.records import Step
from transformers import DynamicCache

from ..support.models import save_model_directory
from ..support.pretended_graphs import pretended_capture, take_static_steps
from ..support.steps import decode_all, token_of, whole

VARIANTS = ("drop:attn=[1]", "drop:mlp=[0,2]", "magnitude:0.5")
"""Lanes of two weight groups."""

KINDS = ("one by one", "captured")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("models") / "tiny")


def opened(directory: Path, **changes: Any) -> Session:
    settings: dict[str, Any] = {
        "prompt": "Natalia sold clips",
        "variants": VARIANTS,
        "max_new_tokens": 12,
        "ignore_eos": True,
    }
    return open_session(Options(model=str(directory), **settings | changes), None, lambda *_: None)


def static(directory: Path, kind: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Session:
    take_static_steps(monkeypatch)
    session = opened(directory, graphs=kind == "captured", **changes)
    assert session.lanes.lockstep.static
    return session


def assert_same(steps: list[Step], expected: list[Step], tolerance: float = 1e-5) -> None:
    """Equal tokens, and numbers that rounding explains."""
    assert len(steps) == len(expected)
    for step, other in zip(steps, expected, strict=True):
        for lane, (token, known) in enumerate(zip(step.lanes, other.lanes, strict=True)):
            assert (token is None) == (known is None), lane
            if token and known:
                assert (token.token, token.forced) == (known.token, known.forced)
                assert token.prob == pytest.approx(known.prob, abs=tolerance)
        for drift, known in zip(
            [*whole(step.drift), *(step.local or [])],
            [*whole(other.drift), *(other.local or [])],
            strict=True,
        ):
            assert drift is not None
            assert known is not None
            for name in ("cos_h", "cos_z", "cos_p", "kl", "orth_h", "est_p"):
                assert getattr(drift, name) == pytest.approx(getattr(known, name), abs=tolerance), (
                    name
                )


def used(session: Session, *, ahead: bool) -> list[list[Step]]:
    """The steps of a session through all that moves in its caches."""
    seen: list[list[Step]] = []

    def steps(count: int) -> None:
        for _ in range(count):
            session.step(ahead=ahead)
        seen.append([*session.trace.steps])

    steps(7)
    session.rewind(3)
    steps(4)
    other = (token_of(session.trace.steps[4], 1).token + 1) % 250
    session.force(4, {1: other})
    steps(3)
    session.switch(0)
    steps(2)
    session.read(3)
    steps(1)
    session.step({0: 65, 2: 66}, ahead=ahead)
    steps(1)
    session.restart()
    steps(3)
    session.restart(context="forced")
    steps(4)
    session.set_variants(["drop:attn=[0,2]", "magnitude:0.5"])
    steps(4)
    session.restart(prompt="Another prompt, and a longer one than the first was.")
    seen.append(decode_all(session))
    session.close()
    return seen


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_session_is_used_as_an_eager_one(
    kind: str, temperature: float, directory: Path, monkeypatch
) -> None:
    """Rewind, branch, force, look back, another context, other variants, another prompt."""
    options = {"temperature": temperature, "top_k": 40} if temperature else {}
    expected = used(opened(directory, **options), ahead=False)
    found = used(static(directory, kind, monkeypatch, **options), ahead=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("context", ["free", "forced", "both"])
def test_steps_read_ahead_have_the_same_numbers(
    context: Context, directory: Path, monkeypatch
) -> None:
    """To the bit; each token is read once, and none after the last step."""
    reads: list[int] = []
    advance = StaticSteps.advance

    def counted(self: StaticSteps, tokens: torch.Tensor, length: int, *more: Any) -> Any:
        reads.append(length)
        return advance(self, tokens, length, *more)

    session = static(directory, "captured", monkeypatch, context=context)
    monkeypatch.setattr(StaticSteps, "advance", counted)
    plain = decode_all(session)
    session.restart()
    reads.clear()
    while session.finished is None:
        session.step(ahead=True)
    first = len(session.trace.header.prompt.tokens)
    assert reads == [*range(first, first + len(plain) - 1)]
    for ours, theirs in zip(session.trace.steps, plain, strict=True):
        assert (ours.lanes, ours.candidates) == (theirs.lanes, theirs.candidates)
        assert (ours.drift, ours.local) == (theirs.drift, theirs.local)
    session.close()


def test_captured_steps_have_the_numbers_of_those_that_are_not(
    directory: Path, monkeypatch
) -> None:
    """To the bit: the same operations."""
    one_by_one, captured = (
        decode_all(static(directory, kind, monkeypatch, temperature=0.7)) for kind in KINDS
    )
    for ours, theirs in zip(one_by_one, captured, strict=True):
        assert (ours.lanes, ours.drift, ours.local) == (theirs.lanes, theirs.drift, theirs.local)


def test_a_step_is_captured_once(directory: Path, monkeypatch) -> None:
    """For the proof, and for the room that the prompt needs with its answer."""
    captures: list[int] = []

    def counted(*arguments: Any) -> Any:
        captures.append(1)
        return pretended_capture(*arguments)

    take_static_steps(monkeypatch, counted)
    session = opened(directory)
    proofs = len(captures)
    session.step()
    session.step()
    assert len(captures) == proofs + 1
    decode_all(session)
    session.rewind(2)
    session.read(1)
    decode_all(session)
    session.force(5, {0: 70})
    assert len(captures) == proofs + 1
    session.close()


@pytest.mark.parametrize(
    "error",
    [RuntimeError("operation not permitted when stream is capturing"), ValueError("\x1b[31mred")],
)
def test_what_cannot_be_captured_goes_on_eagerly(
    error: Exception, directory: Path, monkeypatch
) -> None:
    """With the reason in a note of the trace."""
    expected = decode_all(opened(directory))

    def refuse(*_: object) -> None:
        raise error

    take_static_steps(monkeypatch, refuse)
    session = opened(directory)
    assert not session.lanes.lockstep.static
    notes = [note for note in session.trace.header.notes if "CUDA graph" in note]
    assert len(notes) == 1
    assert str(error) in notes[0]
    for ours, theirs in zip(decode_all(session), expected, strict=True):
        assert (ours.lanes, ours.drift) == (theirs.lanes, theirs.drift)
    session.close()


def test_a_step_that_keeps_its_position_on_the_host_is_found(directory: Path, monkeypatch) -> None:
    """A replay of it would read at the position of the capture for ever."""

    def keep(run: Callable[[], Any], _device: torch.device) -> Any:
        _launch, result = pretended_capture(run, _device)
        return (lambda: lambda: 0.0), result

    expected = decode_all(opened(directory))
    take_static_steps(monkeypatch, keep)
    session = opened(directory)
    assert not session.lanes.lockstep.static
    assert "other logits than transformers" in session.trace.header.notes[0]
    for ours, theirs in zip(decode_all(session), expected, strict=True):
        assert (ours.lanes, ours.drift) == (theirs.lanes, theirs.drift)
    session.close()


def test_a_capture_that_memory_has_no_room_for_is_said(directory: Path, monkeypatch) -> None:
    """At the first step, with the session as it was; later there may be room."""
    take_static_steps(monkeypatch)
    session = opened(directory)
    expected = decode_all(session)
    session.restart(prompt="x" * 250)
    full = [True]

    def capture(*arguments: Any) -> Any:
        if full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pretended_capture(*arguments)

    take_static_steps(monkeypatch, capture)
    session.step()
    with pytest.raises(UserError, match="out of memory at step 1"):
        session.step()
    assert len(session.trace.steps) == 1
    full.clear()
    assert len(decode_all(session)) == 6
    session.restart(prompt="Natalia sold clips")
    assert_same(decode_all(session), expected, tolerance=0)
    session.close()


def test_seconds_are_those_of_the_device_where_the_host_did_not_wait(
    directory: Path, monkeypatch
) -> None:
    """A step that was read ahead while nobody looked did not take no time."""

    def slow(run: Callable[[], Any], device: torch.device) -> Any:
        launch, result = pretended_capture(run, device)

        def timed() -> Callable[[], float]:
            launch()
            return lambda: 1234.5

        return timed, result

    take_static_steps(monkeypatch, slow)
    session = opened(directory)
    for _ in range(3):
        session.step(ahead=True)
    assert [step.seconds for step in session.trace.steps[1:]] == [1234.5, 1234.5]
    assert session.trace.steps[0].seconds < 1000
    session.close()


def test_a_trace_longer_than_what_may_be_decoded_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed with fewer tokens than it has, beyond the room that those need."""
    source = save_model_directory(tmp_path / "long", max_position_embeddings=1024)
    take_static_steps(monkeypatch)
    session = opened(source, max_new_tokens=300, context="free")
    decode_all(session)
    session.read(290)
    expected = session.trace.steps[290].lens
    options = Options(
        model=str(source),
        prompt="Natalia sold clips",
        variants=VARIANTS,
        max_new_tokens=12,
        context="free",
        ignore_eos=True,
    )
    session.close()
    resumed = open_session(options, None, lambda *_: None, session.trace)
    resumed.read(290)
    assert resumed.trace.steps[290].lens == expected
    resumed.close()


def test_bytes_read_are_those_of_the_step_before_which_another_is_begun(
    directory: Path, monkeypatch
) -> None:
    """Of attention that reads what is filled alone."""

    def filled(_: StaticLlamaStep, cache: DynamicCache) -> int:
        return fixed_cache_bytes(cache, whole_room=False)

    monkeypatch.setattr(StaticLlamaStep, "cache_bytes", filled)
    session = static(directory, "captured", monkeypatch)
    expected = [step.read for step in decode_all(session)]
    session.rewind(0)
    for _ in expected:
        session.step(ahead=True)
    assert [step.read for step in session.trace.steps] == expected
    assert len({*expected}) == len(expected)
    session.close()


def test_bytes_read_are_those_of_the_whole_room(directory: Path, monkeypatch) -> None:
    """A mask hides positions, and does not spare reading them."""
    session = static(directory, "captured", monkeypatch)
    steps = decode_all(session)
    caches = session.lanes.lockstep.caches
    room = sum(
        buffer.nbytes
        for cache in caches
        for layer in cache.layers
        for buffer in layer.buffers  # pyright: ignore[reportAttributeAccessIssue]
    )
    assert steps[1].read == steps[-1].read == session.lanes.weight_bytes + room
    session.close()
