"""Capture of a step as a CUDA graph: hundreds of launches become one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from transformers.utils import import_utils

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
        stream, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(stream)
        try:
            # A capture that fails leaves its stream the current one, so this puts it back too.
            with torch.cuda.stream(beside):
                # What libraries prepare at a first call.
                run()
                with _no_reads():
                    run()
                graph = torch.cuda.CUDAGraph()
                # Torch's own stream is one of the device that was first captured on; other threads
                # may use CUDA meanwhile.
                with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
                    result = run()
        finally:
            # Of what has failed, too: it would run beside what comes next, in the same tensors.
            stream.wait_stream(beside)

    def launch() -> Callable[[], float]:
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
        return lambda: begin.elapsed_time(end) / 1e3

    return launch, result


@contextmanager
def _no_reads() -> Iterator[None]:
    """Refuse to read a tensor on the host, rather than in a capture, which it would leave broken.

    What transformers reads only where nothing is captured is no hindrance.
    """
    before, capturing = torch.cuda.get_sync_debug_mode(), import_utils.is_cuda_stream_capturing
    torch.cuda.set_sync_debug_mode("error")
    import_utils.is_cuda_stream_capturing = lambda: True
    try:
        yield
    finally:
        import_utils.is_cuda_stream_capturing = capturing
        torch.cuda.set_sync_debug_mode(before)
