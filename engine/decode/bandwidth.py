"""The physical limit of decoding: a step reads every weight and every cache once."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..cpu.backend import backend_for

BLOCK = 256 << 20
"""Bytes to read; more than any cache of a CPU holds."""
ROUNDS = 5

GPU_BLOCK = 1 << 30
"""Most bytes of each block that is read on CUDA, where a smaller one takes microseconds."""
SMALLEST_GPU_BLOCK = 128 << 20
"""Least bytes of each: no NVIDIA GPU's cache holds more."""
GPU_ROUNDS = 20
GPU_COLUMNS = 4096
"""Columns of a block as a matrix."""


def read_bandwidth(device: torch.device, dtype: torch.dtype) -> float:
    """Bytes per second at which a large tensor of a dtype is read; the best of a few rounds.

    Read by a sum, or by a product with one row where that is faster: a sum alone does not keep
    every processor's memory busy.
    """
    if device.type == "cuda":
        bandwidth = _cuda_bandwidth(device, dtype)
        torch.cuda.empty_cache()
        return bandwidth
    block = torch.ones(BLOCK // dtype.itemsize, dtype=dtype, device=device)
    ways: list[Callable[[], float]] = [lambda: block.view(torch.float32).sum().item()]
    if backend := backend_for(device, dtype):
        ways.append(backend.read_probe(block))
    best = float("inf")
    for way in ways * ROUNDS:
        began = time.perf_counter()
        way()
        best = min(best, time.perf_counter() - began)
    return BLOCK / best


def _cuda_bandwidth(device: torch.device, dtype: torch.dtype) -> float:
    """`read_bandwidth` by the GPU's own clock.

    The host queues all reads and waits once: its launches and waits are in no read's time. Two
    blocks are read in turn, so that the GPU's cache holds nothing of the one that is next.
    """
    free, _ = torch.cuda.mem_get_info(device)
    size = max(SMALLEST_GPU_BLOCK, min(GPU_BLOCK, _power_of_two(free // 4)))
    summed, multiplied = (
        torch.ones(size // dtype.itemsize, dtype=dtype, device=device) for _ in range(2)
    )
    rows, weight = (
        summed.view(torch.float32).view(-1, GPU_COLUMNS),
        multiplied.view(-1, GPU_COLUMNS),
    )
    ways: list[Callable[[], Tensor]] = [
        lambda: rows.sum(dim=-1),
        lambda: nn.functional.linear(weight[:1], weight),
    ]
    stream = torch.cuda.current_stream(device)
    events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    for way in ways * GPU_ROUNDS:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record(stream)
        way()
        ended.record(stream)
        events.append((began, ended))
    stream.synchronize()
    return size / min(began.elapsed_time(ended) / 1e3 for began, ended in events)


def _power_of_two(number: int) -> int:
    """The largest power of two that is at most the number; 0 for 0."""
    return 1 << number.bit_length() >> 1


def weight_bytes(models: list[PreTrainedModel]) -> int:
    """Bytes of weights that one forward pass of each model reads.

    Every parameter counts, except an input embedding that is not also the head: a pass reads a few
    of its rows. All experts of a mixture count.
    """
    total = 0
    for model in models:
        backend = backend_for(model.device, model.dtype)
        sizes: dict[int, int] = {}
        for module in model.modules():
            if not isinstance(module, nn.Embedding):
                for name, parameter in module.named_parameters(recurse=False):
                    stored = (
                        backend.stored_weight(module) if backend and name == "weight" else parameter
                    )
                    sizes[id(parameter)] = stored.nbytes
        total += sum(sizes.values())
    return total
