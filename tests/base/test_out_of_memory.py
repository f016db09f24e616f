"""Errors of every type that mean out of memory, and the sentence they become."""

import errno
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.out_of_memory import (
    guard_memory,
    guard_memory_by_stage,
    out_of_memory,
    release_failed_attempt,
    roll_back,
)
from safetensors import SafetensorError

from ..support.command_line import complaint
from ..support.models import save_model_directory


def chained(cause: BaseException, *, explicit: bool) -> Exception:
    """Return an error raised from another, or while the other was handled."""
    try:
        try:
            raise cause
        except BaseException as error:
            raise ValueError("a") from (error if explicit else None)
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("CUDA NVRTC error: NVRTC_ERROR_OUT_OF_MEMORY"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
        ),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtCreate(<handle)`"
        ),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`"
        ),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `x`"),
        RuntimeError(
            "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling "
            "`cusolverDnCreate(handle)`. If you keep seeing this error, you may use"
        ),
        RuntimeError("CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseSpMM(x)`"),
        RuntimeError("CUDA error: resource allocation failed when calling `cusparseSpMM(x)`"),
        RuntimeError("CUDA error: insufficient resources when calling `cusparseSpGEMM_compute(x)`"),
        RuntimeError("CUDA error: initialization error when calling `cusparseCreate(handle)`"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 268435456 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError("unable to mmap 538 bytes from file <x>: Cannot allocate memory (12)"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        SafetensorError("I/O error: Cannot allocate memory (os error 12)"),
        SystemError("error return without exception set"),
        SystemError("<built-in function f> returned NULL without setting an exception"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
        chained(MemoryError(), explicit=True),
        chained(MemoryError(), explicit=False),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:50],
)
def test_memory_that_ran_out_is_known(error: Exception) -> None:
    assert out_of_memory(error)

    def load() -> None:
        with guard_memory_by_stage(lambda *_: None) as report:
            report("loading x", None)
            raise error

    with pytest.raises(UserError, match=r"^out of memory while loading x; a smaller model, fewer"):
        load()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size mismatch"),
        torch.AcceleratorError(
            "CUDA error: an illegal memory access was encountered\n"
            "Search for `cudaErrorIllegalAddress' in https://docs.nvidia.com/cuda"
        ),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        torch.AcceleratorError("CUDA error: too many resources requested for launch"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(x)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasGemmEx(x)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: internal error when calling `cusparseSpMM(x)`"),
        RuntimeError("No CUDA GPUs are available"),
        ValueError("the prompt says: out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        chained(ValueError(), explicit=True),
    ],
    ids=str,
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not out_of_memory(error)
    with pytest.raises(type(error)) as raised, guard_memory_by_stage(lambda *_: None):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("too big")])
def test_what_says_something_else_is_no_lack_of_memory(error: BaseException) -> None:
    error.__context__ = MemoryError()
    assert not out_of_memory(error)


@pytest.fixture
def emptied(monkeypatch) -> list[str]:
    """A call of torch's that frees GPU memory, as if CUDA were initialized."""
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty_cache"))
    return calls


class Loop:
    """An object in a reference cycle, as models with hooks are."""

    def __init__(self) -> None:
        self.itself: Loop | None = self


def test_what_memory_ran_out_for_is_freed(emptied: list[str]) -> None:
    alive: weakref.WeakSet[Loop] = weakref.WeakSet()

    def load() -> None:
        loop = Loop()
        alive.add(loop)
        with guard_memory("too big"):
            raise torch.OutOfMemoryError

    with pytest.raises(UserError, match=r"^too big$") as raised:
        load()
    release_failed_attempt(raised.value)
    assert len(alive) == 0
    assert emptied == ["empty_cache"]


def test_other_errors_leave_the_memory_of_gpus_alone(emptied: list[str]) -> None:
    release_failed_attempt(ValueError())
    assert emptied == []


def test_a_gpu_that_has_failed_does_not_hide_the_first_error(monkeypatch) -> None:
    def fail() -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", fail)
    release_failed_attempt(MemoryError())


def test_torch_is_not_imported_to_free_memory(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    release_failed_attempt(MemoryError())
    assert "torch" not in sys.modules


def test_state_is_put_back_when_what_failed_is_freed() -> None:
    alive: list[weakref.ref[Loop]] = []
    at_recovery: list[bool] = []

    def attempt() -> None:
        block = Loop()
        block.itself = None
        alive.append(weakref.ref(block))
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        roll_back(lambda: at_recovery.append(alive[0]() is None)),
    ):
        attempt()
    with roll_back(lambda: at_recovery.append(False)):
        pass
    assert at_recovery == [True]


def test_what_was_being_done_reaches_who_asked() -> None:
    reports: list[tuple[str, float | None]] = []
    with guard_memory_by_stage(lambda *stage: reports.append(stage)) as report:
        report("loading x", 0.5)
    assert reports == [("loading x", 0.5)]


LIMITED = """
import resource, sys
import prunetui.engine.session.session
import prunetui.tui.cli.record, prunetui.tui.cli.rank, prunetui.tui.cli.prune
from prunetui.tui.cli.main import main
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
limit = now + (int(sys.argv.pop(1)) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""
"""Program that runs a command with so many MB of address space beyond what its imports take."""


def run_limited(tmp_path: Path, megabytes: int, command: str) -> subprocess.CompletedProcess[str]:
    tiny = tmp_path / "tiny"
    if not tiny.exists():
        save_model_directory(tiny)
    options = ["-m", tiny, "--threads", "1"]
    if command != "rank":
        options += ["-v", "wanda:0.5", "-o", tmp_path / f"{command}-{megabytes}"]
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes), command, *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
        # Nothing is compiled yet.
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / f"cache-{megabytes}")},
    )


def is_one_sentence(text: str) -> bool:
    """Whether stderr is one sentence of ours, after what Rust's panics print by themselves."""
    if "panicked at" in text:
        text = text[text.rfind("prunetui: ") :]
    return text.startswith("prunetui: ") and text.strip().count("\n") == 0


NATIVE_ENDS = re.compile(
    r"LLVM ERROR: out of memory|std::bad_alloc|memory allocation of \d+ bytes failed|"
    r"cannot allocate memory for thread-local data|failed to register TLS destructor: out of memory"
)
"""Last words of C++, Rust and the C library, which end the process without asking Python."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
@pytest.mark.parametrize("megabytes", [8, 16, 24, 40, 60, 80, 120, 160, 200, 250, 300, 400])
@pytest.mark.parametrize("command", ["record", "rank", "prune"])
def test_any_size_of_memory_is_enough_or_gets_a_sentence(
    command: str, megabytes: int, tmp_path: Path
) -> None:
    done = run_limited(tmp_path, megabytes, command)
    assert "Traceback" not in done.stderr
    if done.returncode != 0 and not NATIVE_ENDS.search(done.stderr):
        assert done.returncode == 2, done.stderr
        assert is_one_sentence(done.stderr.lstrip("\n")), done.stderr
        assert "memory" in done.stderr


@pytest.mark.parametrize(
    ("command", "function", "stage"),
    [
        ("record", "session.session.read_bandwidth", "preparing the step (compiled once)"),
        ("record", "decode.prepared_lanes.noise_floor", "measuring"),
        ("rank", "variants.builder.measure_similarity", "ranking the sublayers"),
        ("prune", "variants.export.save_checkpoint", "writing"),
    ],
)
def test_a_command_says_what_there_was_no_room_for(
    command: str, function: str, stage: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(f"prunetui.engine.{function}", fail)
    options = ["-m", save_model_directory(tmp_path / "tiny")]
    if command != "rank":
        options += ["-v", "drop:attn=[1]", "-o", tmp_path / "output"]
    sentence = complaint(capsys, command, *options)
    assert f"prunetui: out of memory while {stage}" in sentence
    assert not (tmp_path / "output").exists()
