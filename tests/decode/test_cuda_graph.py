"""The capture of a CUDA graph, with stand-ins for CUDA's streams."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from prunetui.engine.decode.cuda_graph import capture
from transformers.utils.import_utils import is_tracing


class PretendedStream:
    """Stand-in for a stream, which knows for which streams it waited."""

    def __init__(self) -> None:
        self.waited: list[PretendedStream] = []

    def wait_stream(self, other: "PretendedStream") -> None:
        self.waited.append(other)


class PretendedCuda:
    """Stand-in for what of `torch.cuda` a capture uses."""

    def __init__(self) -> None:
        self.own = self.current = PretendedStream()
        self.mode: int | str = 0
        self.capturing = False

    def current_stream(self) -> PretendedStream:
        return self.current

    @contextmanager
    def stream(self, stream: PretendedStream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, _graph: object, *, stream: PretendedStream, **_: str) -> Iterator[None]:
        """As torch's: after an error it raises another, and leaves its stream the current one."""
        before, self.current, self.capturing = self.current, stream, True
        try:
            yield
        except Exception as error:
            raise RuntimeError("operation failed due to a previous error") from error
        finally:
            self.capturing = False
        self.current = before

    def set_sync_debug_mode(self, mode: int | str) -> None:
        self.mode = mode


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> PretendedCuda:
    cuda = PretendedCuda()
    for name in ("current_stream", "stream", "graph", "set_sync_debug_mode"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: cuda.mode)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: cuda.capturing)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", PretendedStream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    return cuda


def fails_at(cuda: PretendedCuda, where: str) -> Callable[[], None]:
    """A step that the first, the second or the captured call of ends in an error."""
    calls: list[str] = []

    def run() -> None:
        calls.append("capture" if cuda.capturing else f"trial {1 + len(calls)}")
        if calls[-1] == where:
            raise ValueError(where)

    return run


@pytest.mark.parametrize("where", ["trial 1", "trial 2", "capture", "nowhere"])
def test_the_stream_before_goes_on_after_all_that_ran_beside_it(
    cuda: PretendedCuda, where: str
) -> None:
    with nullcontext() if where == "nowhere" else pytest.raises((ValueError, RuntimeError)):
        capture(fails_at(cuda, where), torch.device("cpu"))
    assert cuda.current is cuda.own
    assert len(cuda.own.waited) == 1
    assert cuda.own.waited[0] is not cuda.own
    assert cuda.mode == 0


def test_what_transformers_reads_only_where_nothing_is_captured_is_no_hindrance(
    cuda: PretendedCuda,
) -> None:
    def read() -> None:
        if cuda.capturing or cuda.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    def run() -> int:
        if not is_tracing(torch.zeros(1)):
            read()
        return 5

    assert capture(run, torch.device("cpu"))[1] == 5
    with pytest.raises(RuntimeError, match="synchronizing"):
        capture(lambda: [read()] if cuda.mode == "error" else [], torch.device("cpu"))
    assert not is_tracing(torch.zeros(1))
