"""Bandwidth of a GPU's memory, by events that are pretended."""

from typing import Any

import pytest
import torch
from prunetui.engine.decode.bandwidth import GPU_BLOCK, GPU_ROUNDS, read_bandwidth
from torch.utils._python_dispatch import TorchDispatchMode

GIB = 1 << 30
MIB = 1 << 20


class Gpu(TorchDispatchMode):
    """A GPU whose tensors have no data, so that nothing can be read back, and whose clock says that
    the reads took these milliseconds; `log` has what the host did in order."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, free: int, milliseconds: list[float]
    ) -> None:
        super().__init__()
        self.log: list[object] = []
        self.milliseconds = iter(milliseconds)
        gpu, ones = self, torch.ones

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing

            def record(self, stream: object) -> None:
                assert stream is gpu
                gpu.log.append("event")

            def elapsed_time(self, _ended: "Event") -> float:
                assert gpu.log[-1] == "wait"
                return next(gpu.milliseconds)

        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * GIB))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: self)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.log.append("freed"))
        monkeypatch.setattr(torch, "ones", lambda *a, **k: ones(*a, **{**k, "device": "meta"}))

    def synchronize(self) -> None:
        self.log.append("wait")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, output = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        if not func.is_view:
            largest = max(
                (arg for arg in args if isinstance(arg, torch.Tensor)),
                key=torch.numel,
                default=None,
            )
            self.log.append((name, largest.nbytes if largest is not None else output.nbytes))
        return output


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_events_time_reads_of_a_gibibyte_which_the_host_does_not_wait_for(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    milliseconds = [0.5] * (2 * GPU_ROUNDS)
    milliseconds[3] = 0.4
    with Gpu(monkeypatch, 60 * GIB, milliseconds) as gpu:
        assert read_bandwidth(torch.device("cuda"), dtype) == GIB / 0.4e-3
    timed = ["event", ("sum", GIB), "event", "event", ("mm", GIB), "event"]
    blocks = [("ones", GIB)] * 2
    assert gpu.log == [*blocks, *timed * GPU_ROUNDS, "wait", "freed"]


@pytest.mark.parametrize(
    ("free", "size"),
    [
        (4 * GIB, GPU_BLOCK),
        (4 * GIB - 1, 512 * MIB),
        (GIB, 256 * MIB),
        (300 * MIB, 128 * MIB),
    ],
)
def test_a_gpu_that_is_almost_full_reads_less(
    free: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gpu(monkeypatch, free, [1.0] * (2 * GPU_ROUNDS)) as gpu:
        assert read_bandwidth(torch.device("cuda"), torch.bfloat16) == size / 1e-3
    assert {entry[1] for entry in gpu.log if isinstance(entry, tuple)} == {size}
