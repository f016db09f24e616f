"""The GPU's benchmark itself, on a CPU: what it runs, what it prints, and what it judges."""

import contextlib
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock, call, create_autospec

import msgspec
import pytest
import torch
import transformers
from prunetui.engine.decode import static_steps

from ..support.pretended_graphs import pretend_graphs
from . import gpu, gpu_measures, gpu_shapes
from .gpu import Job, JobFailedError
from .gpu_report import Target, result_lines, targets
from .gpu_results import Generate, Kernels, Rows, Timing, Way
from .gpu_shapes import TINY, Lanes, Shape

SHAPE = dataclasses.replace(TINY, dtype=torch.float32)
PASSED = Target("the engine's tests marked gpu pass", True, "9 passed")


@pytest.fixture
def sync_debug_mode(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Few steps, and stand-ins for what only a build for CUDA has; returns one of them."""
    pretend_graphs(monkeypatch)
    monkeypatch.setattr("prunetui.engine.model.fused_weights.is_worthwhile", lambda _: True)
    counts = {"FIRST_STEPS": 4, "STEPS": 3, "STALLED_STEPS": 3, "EQUAL_STEPS": 3}
    for name, count in (counts | {"WATCHED_STEPS": 2}).items():
        monkeypatch.setattr(gpu_measures, name, count)
    for name in ("synchronize", "set_sync_debug_mode", "max_memory_allocated"):
        stand_in = create_autospec(getattr(torch.cuda, name), return_value=1000)
        monkeypatch.setattr(torch.cuda, name, stand_in)
    # It warns that it sees no GPU.
    monkeypatch.setattr(gpu_measures, "profile", no_profile)
    monkeypatch.setitem(gpu_shapes.SHAPES, "tiny", SHAPE)
    return torch.cuda.set_sync_debug_mode  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def no_profile(*, activities: list[torch.profiler.ProfilerActivity]) -> Iterator[Mock]:
    assert torch.profiler.ProfilerActivity.CUDA in activities
    kernel, launch = Mock(), Mock()
    kernel.device_type.name, launch.device_type.name = "CUDA", "CPU"
    kernel.name, kernel.time_range.elapsed_us = "gemv", lambda: 40.0
    yield Mock(events=lambda: [kernel, launch, kernel])


def test_every_job_runs_and_is_printed(sync_debug_mode: Mock, capsys) -> None:
    todo = [Job("tiny", what) for what in ("generate", "9", "load")]
    status = gpu.bench(todo, lambda job, _: [*gpu.measure_here(job)][-1], lambda _: PASSED)
    # Around every forward part that is watched, of the graph's steps and of the eager ones.
    assert sync_debug_mode.mock_calls == 4 * [call("error"), call("default")]
    out = capsys.readouterr().out
    begins = [line[2:23].strip() for line in out.splitlines() if line.startswith("  ")]
    assert [re.sub(r"[\d.]+ .*", "N", begin) for begin in begins] == [
        *("generate", "cuDNN allowed", "generate, static"),
        *("floor N", "graph", "graph, painting", "graph, unfused"),
        *("eager", "eager, painting", "eager, cuDNN allowed", "graph", "eager"),
        *("graph and eager", "control lane", "memory", "loaded from a folder"),
    ]
    assert "1 kernels and copies a step, busy 0.04 ms; cuDNN: none" in out
    verdicts = {line[14:]: line[:14].strip() for line in out.splitlines()[-10:]}
    assert verdicts["graph and eager equal to the bit: in 1 processes"] == "met"
    assert [text for text, verdict in verdicts.items() if verdict == "NOT MEASURED"] == [
        "graph at most 1.35 × compiled generate of one model (tiny, 9 rows): transformers did not "
        "compile it"
    ]
    assert verdicts["no host wait in the forward part of a step: in 1 processes"] == "met"
    assert verdicts["no kernel of cuDNN: in 1 processes"] == "met"
    assert verdicts[f"{PASSED.what}: 9 passed"] == "met"
    assert status == 1


@pytest.mark.slow
def test_a_process_hands_back_what_it_has_measured() -> None:
    result = gpu.measure_in_process(Job("tiny", "generate"), 100)
    assert isinstance(result, Generate)
    assert result.dynamic.longest >= result.dynamic.p95 >= result.dynamic.median > 0
    assert result.static is not None
    assert not result.compiled


@pytest.mark.parametrize(
    ("script", "seconds", "failure"),
    [
        ("sleep 9", 0.1, "not done after 0 s"),
        ("echo 'no: room' >&2; exit 3", 9, "exit status 3: no: room"),
        ("echo words; exit 0", 9, "exit status 0"),
        ("printf '{\"type\"'; kill -9 $$", 9, "exit status -9"),
    ],
)
def test_a_process_that_gives_no_result(
    monkeypatch, tmp_path: Path, script: str, seconds: float, failure: str
) -> None:
    monkeypatch.setattr(sys, "executable", run_instead(tmp_path, script))
    with pytest.raises(JobFailedError, match=f"^{failure}$"):
        gpu.measure_in_process(Job("tiny", "5"), seconds)


@pytest.mark.parametrize("end", ["exit 1", "sleep 9", ""])
def test_what_was_measured_before_a_process_ended_counts(
    monkeypatch, tmp_path: Path, end: str
) -> None:
    line = msgspec.json.encode(GENERATE).decode()
    script = f"cat <<'END'\nwords\n{{}}\n{line}\nEND\n{end}"
    monkeypatch.setattr(sys, "executable", run_instead(tmp_path, script))
    assert gpu.measure_in_process(Job("tiny", "generate"), 1) == GENERATE


def run_instead(directory: Path, script: str) -> str:
    """A program that runs a shell's script, whatever its arguments."""
    program = directory / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.usefixtures("sync_debug_mode")
def test_generate_that_cannot_be_compiled_is_no_crash(monkeypatch) -> None:
    def seconds(*_: object, **settings: object) -> list[float]:
        if settings:
            raise RuntimeError("no C compiler\nanywhere")
        return [0.02, 0.02]

    monkeypatch.setattr(gpu_measures, "generate_seconds", seconds)
    first, last = gpu.measure_here(Job("tiny", "generate"))
    assert isinstance(first, Generate)
    assert isinstance(last, Generate)
    assert first.dynamic == last.dynamic == timing(0.02, 0.02, 0, gpu=0.0)
    assert (first.static, first.error) == (None, "its process ended before it was measured")
    assert (last.static, last.error) == (None, "RuntimeError: no C compiler")


def test_what_has_no_time_left_or_fails_is_left_out_by_name(monkeypatch, capsys) -> None:
    def fail(_job: Job, _seconds: float) -> Rows:
        monkeypatch.setattr(gpu, "BUDGET", 0)
        raise JobFailedError("no compiler")

    assert gpu.bench(gpu.jobs(), fail, lambda _: PASSED) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert len(lines) == 3 * 5 + 1
    assert lines[0] == "left out      Mistral-7B-v0.3, generate: no compiler"
    assert lines[1] == "left out      Mistral-7B-v0.3, 9 rows: no time was left"
    assert lines[-1] == "left out      Llama-3.1-8B, 17 rows: no time was left"


def test_without_a_gpu_it_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    said = capsys.readouterr()
    assert said.err == "make bench-gpu needs an NVIDIA GPU that torch can use; there is none\n"
    assert said.out == ""


def test_with_a_gpu_it_says_which_and_runs_all_jobs(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(gpu.subprocess, "check_output", lambda *_, **__: "570.86.10\n570.86.10\n")
    bench = create_autospec(gpu.bench, return_value=0)
    monkeypatch.setattr(gpu, "bench", bench)
    assert gpu.main([]) == 0
    bench.assert_called_once_with(gpu.jobs(), gpu.measure_in_process, gpu.run_gpu_tests)
    assert gpu.jobs()[:2] == [Job("Mistral-7B-v0.3", "generate"), Job("Mistral-7B-v0.3", "9")]
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    head = capsys.readouterr().out
    assert head.startswith("NVIDIA H100, driver 570.86.10, CUDA ")
    assert versions in head
    no_tool = Mock(side_effect=FileNotFoundError)
    monkeypatch.setattr(gpu.subprocess, "check_output", no_tool)
    assert gpu.heading().startswith("NVIDIA H100, driver unknown, ")


@pytest.mark.parametrize(
    ("status", "last", "met"),
    [
        (0, "35 passed, 2 skipped, 37 deselected in 40.01s", True),
        (0, "37 skipped, 37 deselected in 2.10s", False),
        (1, "1 failed, 34 passed in 40.01s", False),
    ],
)
def test_the_tests_are_judged(monkeypatch, capsys, status: int, last: str, met: bool) -> None:
    done = subprocess.CompletedProcess([], status, f"..s.\n{last}\n", "")
    run = create_autospec(subprocess.run, return_value=done)
    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu.run_gpu_tests(30.0) == Target(PASSED.what, met, last)
    assert capsys.readouterr().out == f"  ..s.\n  {last}\n"
    assert run.call_args.kwargs["timeout"] == 30.0
    run.side_effect = subprocess.TimeoutExpired([], 30)
    assert gpu.run_gpu_tests(30.0) == Target(PASSED.what, None, "not done after 30 s")


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        (gpu_shapes.SEVEN, 7_248_023_552),
        (gpu_shapes.EIGHT, 8_030_261_248),
        (gpu_shapes.ONE, 1_235_814_400),
    ],
)
def test_the_shapes_are_those_of_the_models(shape: Shape, parameters: int) -> None:
    model = dataclasses.replace(shape, device="meta").make()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_rows_are_a_control_and_a_gate_each() -> None:
    assert gpu_shapes.recipes(1, 4) == ()
    assert gpu_shapes.recipes(5, 32) == (
        *("control", "drop:attn=[1]", "drop:mlp=[1]", "drop:attn=[2]"),
    )
    assert len({*gpu_shapes.recipes(17, 16)}) == 16


@pytest.mark.usefixtures("sync_debug_mode")
def test_what_differs_in_any_bit_is_named(monkeypatch) -> None:
    lanes = Lanes(SHAPE, 2)
    assert gpu_measures.compare(lanes)[0] == []
    monkeypatch.setattr(gpu_shapes, "recipes", lambda *_: ("drop:mlp=[1]",))
    others = Lanes(SHAPE, 2)
    weight = others.model.get_parameter("lm_head.weight")
    # The last bit of one number in the row of a token that nobody chooses.
    weight[511, :1].view(torch.int32).bitwise_xor_(1)
    session = others.session

    def mixed(steps: int, path: Path, *, graphs: bool, keep: tuple[str, ...]):
        return (session if graphs else lanes.session)(steps, path, graphs=graphs, keep=keep)

    monkeypatch.setattr(others, "session", mixed)
    assert gpu_measures.compare(others) == (
        ["tokens", "candidates", "drift", "layers", "h", "z"],
        ["tokens", "h", "z"],
    )


@pytest.mark.usefixtures("sync_debug_mode")
def test_steps_that_replay_no_graph_are_named(monkeypatch) -> None:
    monkeypatch.setattr(static_steps, "capture", Mock(side_effect=RuntimeError("it reads\nmore")))
    with Lanes(SHAPE, 1).session(3) as session:
        assert gpu_measures.why_no_graph(session) == "the steps are not static"
        assert "cannot run as one CUDA graph (it reads)" in session.trace.header.notes[0]


def test_a_bit_of_the_control_lane_is_seen() -> None:
    vectors = {space: torch.zeros(3, 4, 5) for space in ("h", "z")}
    assert gpu_measures.control_differences([], vectors) == []
    vectors["z"][2, 1, 4] = -0.0
    assert gpu_measures.control_differences([], vectors) == ["z"]
    assert gpu_measures.control_differences([], {"z": torch.ones(3, 1, 5)}) == []


@pytest.mark.usefixtures("sync_debug_mode")
def test_a_wait_for_the_device_is_named() -> None:
    def advance(*_: object) -> None:
        raise RuntimeError("called a synchronizing CUDA operation\nmore")

    with Lanes(SHAPE, 1).session(9) as session:
        session.step()
        assert gpu_measures.host_wait(session) is None
        session.lanes.lockstep.advance = advance  # pyright: ignore[reportAttributeAccessIssue]
        assert gpu_measures.host_wait(session) == "called a synchronizing CUDA operation"


def timing(median: float, p95: float = 0.0, read: int = 700, gpu: float = 0.005) -> Timing:
    return Timing(median, p95, p95, gpu, read)


def rows(**changes: object) -> Rows:
    """Nine rows that meet every target but just: the floor is 7 ms."""
    graph = Way(timing(0.01, 0.011), timing(0.01, 0.013), Kernels(9, 0.009, []), None)
    eager = msgspec.structs.replace(graph, plain=timing(0.014, 0.015))
    result = Rows(
        *(9, 100_000.0, None, graph, eager, timing(0.007 / 0.58), timing(0.04), [], []),
        *(1000, 100, 1210, ["a note"]),
    )
    return msgspec.structs.replace(result, **changes)


def changed(way: Way, **changes: object) -> Way:
    return msgspec.structs.replace(way, **changes)


GENERATE = Generate(timing(0.02), timing(0.05), timing(0.01 / 1.35), True, 40.0, "")
GOOD = rows()
MISSED = {
    "eager at least": {"eager": changed(GOOD.eager, plain=timing(0.0141))},
    "graph without fused": {"unfused": timing(0.0122)},
    "graph with fused": {"graph": changed(GOOD.graph, plain=timing(0.0101))},
    "p95 at most": {"graph": changed(GOOD.graph, painting=timing(0.01, 0.0132))},
    "a control lane": {"control": ["z"]},
    "graph and eager": {"differences": ["h"]},
    "no host wait": {"eager": changed(GOOD.eager, host_wait="waits")},
    "no kernel of cuDNN": {"eager": changed(GOOD.eager, kernels=Kernels(9, 0.009, ["cudnn_sdpa"]))},
}


def verdicts(result: Rows, generate: Generate | None = GENERATE) -> dict[str, bool | None]:
    results = {("7B", "9"): result} | ({("7B", "generate"): generate} if generate else {})
    return {target.what: target.met for target in targets(results, "7B")}


def test_targets_that_are_just_met() -> None:
    assert [*verdicts(GOOD).values()] == 9 * [True]


@pytest.mark.parametrize("what", MISSED)
def test_a_target_that_is_missed(what: str) -> None:
    missed = [name for name, met in verdicts(rows(**MISSED[what])).items() if not met]
    # A slower graph is a slower one beside `generate` too.
    assert [name for name in missed if "generate" not in name] == [
        name for name in verdicts(GOOD) if name.startswith(what)
    ]


def test_targets_that_cannot_be_judged() -> None:
    assert [(target.met, target.found) for target in targets({}, "7B")] == 9 * [
        (None, "no process gave a result")
    ]
    not_compiled = msgspec.structs.replace(GENERATE, compiled=False)
    for generate in (None, not_compiled):
        assert [name for name, met in verdicts(GOOD, generate).items() if met is None] == [
            "graph at most 1.35 × compiled generate of one model (7B, 9 rows)"
        ]
    slow = msgspec.structs.replace(GENERATE, static=timing(0.0073))
    assert [name for name, met in verdicts(GOOD, slow).items() if met is False] == [
        "graph at most 1.35 × compiled generate of one model (7B, 9 rows)"
    ]
    # What was not captured is no graph, however fast.
    eager_only = rows(refusal="no")
    assert [name[:15] for name, met in verdicts(eager_only).items() if met is False] == [
        *("graph without f", "graph with fuse", "graph at most 1", "p95 at most 1.3"),
        "graph and eager",
    ]


def test_the_lines_of_a_process() -> None:
    assert result_lines(GOOD, GENERATE)[:2] == [
        "floor 7.00 ms: 0.00 GB at 0 GB/s, as measured",
        "graph                10.00 ms, p95 11.00 ms, longest 11.00 ms, GPU 5.00 ms, "
        "0.70 of the floor, 0.50 × generate, 1.35 × static",
    ]
    assert result_lines(GOOD, None)[-4:] == [
        "graph and eager      equal to the bit",
        "control lane         equal to the bit",
        "memory               at most 0.00 GB, 1.10 × weights (0.00 GB) and caches (0.00 GB)",
        "note: a note",
    ]
    assert result_lines(rows(refusal="it reads a number"), None)[1] == (
        "NO GRAPH WAS CAPTURED, its lines are of eager steps: it reads a number"
    )
    failed = msgspec.structs.replace(GENERATE, static=None, error="RuntimeError: no C compiler")
    assert result_lines(failed, None)[-1] == (
        "generate, static     failed: RuntimeError: no C compiler"
    )
