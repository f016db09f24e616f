"""Recovery after memory ran out: it begins when what the failed attempt allocated is freed."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.decode.prepared_lanes import PreparedLanes
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.progress import Cancelled
from prunetui.engine.session import session as session_module
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.variants.builder import VariantBuilder

from ..support.models import save_model_directory

STEPS = 6
ILLEGAL = "CUDA error: an illegal memory access was encountered"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def expected(tiny: Path) -> list[list[int]]:
    """What each lane takes at each step where nothing fails."""
    return tokens(open_tiny(tiny))


@pytest.fixture(autouse=True)
def _no_bandwidth(monkeypatch) -> None:
    """Do not measure the bandwidth, which takes seconds and no test here reads."""
    monkeypatch.setattr(session_module, "read_bandwidth", lambda *_: 1e9)


def open_tiny(tiny: Path, **changes: Any) -> Session:
    settings: dict[str, Any] = {
        "model": str(tiny),
        "variants": ("drop:attn=[1]",),
        "prompt": "Twelve bytes",
        "ignore_eos": True,
        "max_new_tokens": STEPS,
        "calibration_length": 32,
        "calibration_samples": 1,
    }
    return open_session(Options(**(settings | changes)), None, lambda *_: None)


def tokens(session: Session) -> list[list[int]]:
    """Decode to the end; return what each lane took at each step."""
    while session.finished is None:
        session.step()
    return [[lane.token for lane in step.lanes if lane] for step in session.trace.steps]


class Attempts:
    """Attempts that allocate and fail, and what was alive of them whenever a recovery asked."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        self._error = error
        self._blocks: list[weakref.ref[torch.Tensor]] = []
        self.alive_at_recovery: list[int] = []

    @property
    def made(self) -> int:
        return len(self._blocks)

    @property
    def alive(self) -> int:
        return sum(block() is not None for block in self._blocks)

    def fail(self, *_: object, **__: object) -> None:
        """Allocate, for a variable and for one that a function closes over, and fail."""
        block = torch.empty(8)

        def close_over() -> None:
            variable = block.clone()
            self._blocks.extend([weakref.ref(block), weakref.ref(variable)])
            raise self._error()

        close_over()

    def watch(self, monkeypatch, owner: type, name: str) -> None:
        """Note what is alive whenever a method begins after a failure."""
        method = getattr(owner, name)

        def watched(this: object, *args: Any, **kwargs: Any) -> object:
            if self._blocks:
                self.alive_at_recovery.append(self.alive)
            return method(this, *args, **kwargs)

        monkeypatch.setattr(owner, name, watched)


def lacks_memory() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def lacks_memory_of_driver() -> BaseException:
    return torch.AcceleratorError("CUDA error: out of memory")


def lacks_memory_of_cublas() -> BaseException:
    """The error of a product on a full GPU, raised from another."""
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(h)`")
    error.__cause__ = ValueError()
    return error


def test_a_step_that_fails_keeps_nothing_and_fewer_lanes_or_a_shorter_prompt_go_on(
    tiny: Path, expected: list[list[int]], monkeypatch
) -> None:
    session = open_tiny(tiny)
    for number, error in enumerate((lacks_memory, lacks_memory_of_driver, lacks_memory_of_cublas)):
        session.step()
        attempts = Attempts(error)
        with monkeypatch.context() as patch:
            patch.setattr(Lockstep, "advance", attempts.fail)
            with pytest.raises(UserError, match=f"out of memory at step {number + 1}") as raised:
                session.step()
            # While who called still has the error.
            assert raised.value.__cause__ is not None
            assert (attempts.made, attempts.alive) == (2, 0)
        assert len(session.trace.steps) == number + 1
    assert tokens(session) == expected
    session.set_variants([])
    assert [taken for (taken,) in tokens(session)] == [taken[0] for taken in expected]
    session.restart(prompt="Twelve")
    assert len(tokens(session)) == STEPS


def test_an_illegal_access_is_no_lack_of_memory(tiny: Path, monkeypatch) -> None:
    session = open_tiny(tiny)
    session.step()
    attempts = Attempts(lambda: torch.AcceleratorError(ILLEGAL))
    monkeypatch.setattr(Lockstep, "advance", attempts.fail)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        session.step()


def test_lanes_are_put_back_when_those_that_failed_are_freed(
    tiny: Path, expected: list[list[int]], monkeypatch
) -> None:
    session = open_tiny(tiny)
    session.step()
    before = session.lanes.lockstep
    new: weakref.WeakSet[Lockstep] = weakref.WeakSet()
    install = Lockstep.install

    def fail_in(failing: str, error: Callable[[], BaseException]) -> tuple[list[int], list[int]]:
        """What is alive as lanes are put back: of the failed attempts, and of new locksteps."""
        attempts = Attempts(error)
        new_at_recovery: list[int] = []

        def installed(lockstep: Lockstep) -> None:
            if lockstep is before:
                new_at_recovery.append(len(new))
            else:
                new.add(lockstep)
                if failing == "install":
                    attempts.fail()
            install(lockstep)

        with monkeypatch.context() as patch:
            attempts.watch(patch, PreparedLanes, "install")
            attempts.watch(patch, type(getattr(session.lanes, "_prepared")), "remove")  # noqa: B009
            patch.setattr(Lockstep, "install", installed)
            if failing != "install":
                patch.setattr(Lockstep, failing, attempts.fail)
            with pytest.raises((UserError, Cancelled)):
                session.set_variants(["magnitude:0.5", "drop:mlp=[0]"])
            with pytest.raises((UserError, Cancelled)):
                session.restart(context="free")
        assert session.lanes.lockstep is before
        return attempts.alive_at_recovery, new_at_recovery

    # The models of the new lanes are restored, and those before are prepared and installed.
    assert fail_in("install", lacks_memory) == ([0, 0], [0, 0])
    assert fail_in("advance", lacks_memory) == ([0, 0], [0, 0])
    assert fail_in("prefill", Cancelled) == ([0, 0], [0, 0])
    assert tokens(session) == expected


def test_lanes_go_on_after_a_ranking_when_what_it_allocated_is_freed(
    tiny: Path, expected: list[list[int]], monkeypatch
) -> None:
    session = open_tiny(tiny)
    session.step()
    attempts = Attempts(lacks_memory)
    with monkeypatch.context() as patch:
        attempts.watch(patch, PreparedLanes, "install")
        patch.setattr("prunetui.engine.variants.builder.measure_similarity", attempts.fail)
        with pytest.raises(UserError, match="out of memory while ranking"):
            session.importance()
    assert attempts.alive_at_recovery == [0]
    assert tokens(session) == expected


def test_a_variant_is_built_when_the_one_left_out_is_freed(tiny: Path, monkeypatch) -> None:
    session = open_tiny(tiny)
    attempts = Attempts(lacks_memory)
    groups: list[weakref.ref[object]] = []
    alive: list[int] = []
    sparsify = getattr(VariantBuilder, "_sparsify")  # noqa: B009

    def second_fails(builder: VariantBuilder, part: Any, state: Any) -> object:
        alive.append(attempts.alive + sum(group() is not None for group in groups))
        if part.sparsity == 0.7:
            group = state.group.copy()
            groups.append(weakref.ref(group))
            attempts.fail()
        made = sparsify(builder, part, state)
        if part.sparsity == 0.25:
            groups.append(weakref.ref(made))
        return made

    monkeypatch.setattr(VariantBuilder, "_sparsify", second_fails)
    session.set_variants(["magnitude:0.25+magnitude:0.7", "magnitude:0.5"])
    assert session.left_out == [
        "variant magnitude:0.25+magnitude:0.7 is left out: out of memory while applying "
        "magnitude:0.7"
    ]
    # The last is before magnitude:0.5; before it, the first part's weights are read.
    assert alive == [0, 1, 0]
    assert [lane.name for lane in session.trace.header.lanes] == ["baseline", "magnitude:0.5"]
