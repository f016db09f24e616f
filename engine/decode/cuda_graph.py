"""Capture of a step as a CUDA graph: hundreds of launches become one."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

Launch = Callable[[], Callable[[], float]]
"""Function that launches a graph; it returns one that gives the seconds that the device took, once
it is done."""


def capture(run: Callable[[], T], device: torch.device) -> tuple[Launch, T]:
    """Record what `run` launches; return a function that launches it again, and what `run`
    returned, whose tensors every launch overwrites.

    `run` is tried out twice before, and must not read a tensor on the host. Raises what it raises,
    and `RuntimeError` if it reads one.
    """
    with torch.cuda.device(device):
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            # What libraries prepare at a first call.
            run()
            before = torch.cuda.get_sync_debug_mode()
            # A read is refused here, rather than in a capture, which it would leave broken.
            torch.cuda.set_sync_debug_mode("error")
            try:
                run()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Torch's own stream is one of the device that was first captured on; other threads may use
        # CUDA meanwhile.
        with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
            result = run()

    def launch() -> Callable[[], float]:
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
        return lambda: begin.elapsed_time(end) / 1e3

    return launch, result
