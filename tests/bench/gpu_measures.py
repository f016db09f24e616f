"""Measurements of one shape in this process: sessions of some rows, `generate`, and loading."""

import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

import torch
from prunetui.engine.decode import static_llama
from prunetui.engine.model.loading import load
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session
from prunetui.engine.trace.records import Step
from prunetui.engine.trace.trace import Trace
from prunetui.engine.trace.vector_file import write_safetensors
from safetensors.torch import load_file
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ..support.models import make_tokenizer
from .gpu_results import Generate, Kernels, Loading, Rows, Timing, Way
from .gpu_shapes import Lanes, Shape
from .memory import cache_room
from .stock_generate import generate_seconds

FIRST_STEPS = 256
"""Steps of a fresh process, from its first on."""
STEPS = 96
"""Steps of every other timing."""
STALLED_STEPS = 24
"""Steps with cuDNN's attention, which may build a plan in each."""
EQUAL_STEPS = 24
"""Steps that are compared bit for bit."""
WATCHED_STEPS = 4
"""Steps under a profiler, and steps in which the host must not wait."""
PAINT, IDLE = 0.011, 0.022
"""Seconds for which the thread that paints holds the interpreter, and those between."""


def measure_rows(shape: Shape, rows: int) -> Rows:
    """Measure sessions of one number of rows, the program's default first."""
    lanes = Lanes(shape, rows)
    with lanes.session(1 + FIRST_STEPS + STEPS) as session:
        header = session.trace.header
        graph = _time_way(session, FIRST_STEPS)
        refusal = why_no_graph(session)
        weights = sum(p.nbytes for p in {*lanes.model.parameters()})
        caches, peak = cache_room(session.lanes.lockstep), torch.cuda.max_memory_allocated()
    with lanes.session(1 + 2 * STEPS + STALLED_STEPS, graphs=False) as session:
        eager = _time_way(session, STEPS)
        with _cudnn_attention():
            cudnn = _time_steps(session, STALLED_STEPS)
    with _unfused(), lanes.session(1 + STEPS) as session:
        session.step()
        unfused = _time_steps(session, STEPS)
    # A profiler may slow down whatever follows it.
    differences, control = compare(lanes)
    return Rows(
        rows=rows,
        bandwidth=header.bandwidth,
        refusal=refusal,
        graph=Way(*graph, *_watch(lanes, graphs=True)),
        eager=Way(*eager, *_watch(lanes, graphs=False)),
        unfused=unfused,
        cudnn=cudnn,
        differences=differences,
        control=control,
        weights=weights,
        caches=caches,
        peak=peak,
        notes=header.notes,
    )


def measure_generate(shape: Shape) -> Iterator[Generate]:
    """Time transformers' own `generate` after the same prompt; once more with what compiles, which
    may take longer than there is time."""
    model, tokens = shape.make(), shape.prompt_tokens()

    def timed(steps: int, **settings: Any) -> Timing:
        return _timing(generate_seconds(model, tokens, steps, **settings))

    generate_seconds(model, tokens, WATCHED_STEPS)
    dynamic = timed(STEPS)
    with _cudnn_attention():
        cudnn = timed(STALLED_STEPS)
    yield Generate(dynamic, cudnn, None, False, 0.0, "its process ended before it was measured")
    began, first_call, error = time.perf_counter(), 0.0, ""
    try:
        timed(STEPS, cache_implementation="static")
        first_call = time.perf_counter() - began
        static = timed(STEPS, cache_implementation="static")
    # The compiler's errors are of many types, those of a missing C compiler too.
    except Exception as failure:
        static, error = None, f"{type(failure).__name__}: {failure}".strip().splitlines()[0]
    yield Generate(dynamic, cudnn, static, hasattr(model, "_compiled_call"), first_call, error)


def measure_loading(shape: Shape) -> Loading:
    """Time the program's loading of a folder that is written here, from the page cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model: Any = shape.make()
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        del model
        gc.collect()
        torch.cuda.empty_cache()
        began = time.perf_counter()
        load(Options(model=str(folder), raw=True, device=shape.device), _silent)
        seconds = time.perf_counter() - began
        return Loading(seconds, sum(file.stat().st_size for file in folder.glob("*.safetensors")))


# -- a session ------------------------------------------------------------------------------------


def _time_way(session: Session, steps: int) -> tuple[Timing, Timing]:
    """Time a session's first steps, then others while a thread paints."""
    # Step 0 chooses from the prompt's logits and needs no forward pass.
    session.step()
    plain = _time_steps(session, steps)
    with _painting():
        return plain, _time_steps(session, STEPS)


def _watch(lanes: Lanes, graphs: bool) -> tuple[Kernels, str | None]:
    """What a profiler sees of a few steps, and which of their operations makes the host wait."""
    with lanes.session(2 + 2 * WATCHED_STEPS, graphs=graphs) as session:
        # In the first of them that reads a token, a graph is captured.
        for _ in range(2):
            session.step()
        return _profile(session), host_wait(session)


def _time_steps(session: Session, count: int) -> Timing:
    seconds: list[float] = []
    marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def marked(forward: Callable[[], Any]) -> Any:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        outputs = forward()
        end.record()
        marks.append((begin, end))
        return outputs

    with _around_forward(session, marked):
        for _ in range(count):
            began = time.perf_counter()
            # As the screen plays.
            session.step(ahead=True)
            seconds.append(time.perf_counter() - began)
    torch.cuda.synchronize()
    gpu = median(begin.elapsed_time(end) for begin, end in marks) / 1e3
    return _timing(seconds, gpu, _floor_bytes(session, count))


def _floor_bytes(session: Session, count: int) -> int:
    """Bytes of weights and filled caches that the step in the middle of the last ones must read."""
    config = session.lanes.models[0].group.model.config
    position = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    trace = session.trace
    filled = len(trace.header.prompt.tokens) + len(trace.steps) - count // 2
    itemsize = session.lanes.models[0].group.model.dtype.itemsize
    return session.lanes.weight_bytes + len(trace.lane_names) * filled * position * itemsize


def _timing(seconds: list[float], gpu: float = 0.0, read: int = 0) -> Timing:
    return Timing(
        median(seconds), quantiles(seconds, n=20, method="inclusive")[-1], max(seconds), gpu, read
    )


@contextmanager
def _painting() -> Iterator[None]:
    """Let a thread hold the interpreter for a third of the time, as a screen that is drawn."""
    done = threading.Event()

    def paint() -> None:
        while not done.wait(IDLE):
            end = time.perf_counter() + PAINT
            while time.perf_counter() < end:
                pass

    thread = threading.Thread(target=paint)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _profile(session: Session) -> Kernels:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(WATCHED_STEPS):
            session.step()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() or [] if event.device_type.name == "CUDA"]
    return Kernels(
        len(events) / WATCHED_STEPS,
        sum(event.time_range.elapsed_us() for event in events) / 1e6 / WATCHED_STEPS,
        sorted({event.name for event in events if "cudnn" in event.name.lower()}),
    )


def host_wait(session: Session) -> str | None:
    """The error of an operation in the forward part of a few steps that made the host wait."""

    def watched(forward: Callable[[], Any]) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return forward()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    try:
        with _around_forward(session, watched):
            for _ in range(WATCHED_STEPS):
                session.step()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


@contextmanager
def _cudnn_attention() -> Iterator[None]:
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def _around_forward(session: Session, call: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """Have each forward part of a step taken by `call`."""
    lockstep = session.lanes.lockstep
    forward = lockstep.advance

    def advance(*args: Any) -> Any:
        return call(lambda: forward(*args))

    with patch.object(lockstep, "advance", advance):
        yield


def why_no_graph(session: Session) -> str | None:
    """Why the session's steps replay no graph; None if they do."""
    lockstep = session.lanes.lockstep
    return lockstep.refusal if lockstep.static else "the steps are not static"


def _unfused() -> AbstractContextManager[object]:
    """Let no products be fused."""
    return patch.object(static_llama, "fused_parameters", lambda _linears: None)


# -- bit for bit ----------------------------------------------------------------------------------


def compare(lanes: Lanes) -> tuple[list[str], list[str]]:
    """What differs between the graph and the eager step, and between control and baseline."""
    with tempfile.TemporaryDirectory() as name:
        (graph, vectors), (eager, eager_vectors) = (
            _recorded(lanes, Path(name) / f"{on}.trace.jsonl", on) for on in (True, False)
        )
    differences = [
        what
        for what, parts in {
            "tokens": [[step.lanes for step in trace.steps] for trace in (graph, eager)],
            "candidates": [[step.candidates for step in trace.steps] for trace in (graph, eager)],
            "drift": [[step.drift for step in trace.steps] for trace in (graph, eager)],
            "layers": [[step.layers for step in trace.steps] for trace in (graph, eager)],
        }.items()
        if parts[0] != parts[1]
    ]
    differences += [s for s in ("h", "z") if not _same_bits(vectors[s], eager_vectors[s])]
    return differences, control_differences(graph.steps, vectors)


def control_differences(steps: Sequence[Step], vectors: Mapping[str, Tensor]) -> list[str]:
    """What differs between the baseline and the lane after it, if there is one."""
    if vectors["z"].shape[1] == 1:
        return []
    tokens = ["tokens"] if any(step.lanes[0] != step.lanes[1] for step in steps) else []
    return tokens + [s for s in ("h", "z") if not _same_bits(vectors[s][:, 0], vectors[s][:, 1])]


def _recorded(lanes: Lanes, path: Path, graphs: bool) -> tuple[Trace, dict[str, Tensor]]:
    """A trace, and h and z of each step, [steps, rows, width]."""
    with lanes.session(EQUAL_STEPS, path, keep=("h", "z"), graphs=graphs) as session:
        while session.finished is None:
            session.step()
    output = path.with_suffix(".safetensors")
    write_safetensors(session.trace, path, output)
    return session.trace, load_file(output)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def _silent(_what: str, _done: float | None) -> None:
    pass
