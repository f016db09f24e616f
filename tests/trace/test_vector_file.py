"""Vectors h and z beside a trace, and their export to safetensors."""

import errno
import json
import math
from pathlib import Path

import msgspec
import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.session import recording
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.export.html import command
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.records import Drift, Step
from prunetui.engine.trace.trace import Trace
from prunetui.engine.trace.vector_file import VectorWriter, write_safetensors
from prunetui.tui.cli.main import main
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM

from ..support.models import END, save_model_directory
from ..support.steps import whole

STEPS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("models") / "tiny")


def open_tiny(model: Path, record_to: Path | None, resume=None, **options) -> Session:
    settings = {
        "model": str(model),
        "variants": ("drop:attn=[1]", "drop:mlp=[0,2]"),
        "prompt": "Twelve bytes",
        "dtype": "float32",
        "ignore_eos": True,
        "max_new_tokens": STEPS,
        "keep": ("h", "z"),
    }
    return open_session(Options(**(settings | options)), record_to, lambda *_: None, resume)


def run(session: Session) -> None:
    while session.finished is None:
        session.step()


def exported(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata exported from the trace's file, not from a session's memory."""
    output = path.with_name(f"{len([*path.parent.iterdir()])}.safetensors")
    write_safetensors(read_trace(path), path, output)
    with safe_open(output, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def assert_of(steps: list[Step], tensors: dict[str, Tensor]) -> None:
    """Assert that the vectors of each step and row give the numbers recorded for step and lane."""
    assert tensors["step"].tolist() == [step.step for step in steps]
    for place, step in enumerate(steps):
        h, z = tensors["h"][place].double(), tensors["z"][place].double()
        lanes = len(step.lanes)
        for lane, token in enumerate(step.lanes):
            if token is not None and not token.forced:
                assert z[lane].argmax() == token.token
        drifts = [*step.drift, *(step.local or [])]
        assert len(h) == len(z) == lanes + len(step.local or [])
        for row, drift in enumerate(drifts, start=1):
            if drift is not None:
                assert_drift(drift, h[0], h[row], z[0], z[row])


def assert_drift(drift: Drift, h0: Tensor, h1: Tensor, z0: Tensor, z1: Tensor) -> None:
    p, q = z0.log_softmax(-1), z1.log_softmax(-1)
    expected = {
        "cos_h": (h0 @ h1 / (h0.norm() * h1.norm())).item(),
        "cos_z": (z0 @ z1 / (z0.norm() * z1.norm())).item(),
        "kl": (p.exp() * (p - q)).sum().item(),
    }
    assert {key: getattr(drift, key) for key in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("context", ["free", "forced", "both"])
def test_kept_vectors_give_the_numbers_of_the_trace(model: Path, tmp_path: Path, context) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(model, path, context=context)
    run(session)
    session.close()
    tensors, metadata = exported(path)
    rows = 5 if context == "both" else 3
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "step": (STEPS,),
        "h": (STEPS, rows, 32),
        "z": (STEPS, rows, 257),
    }
    assert_of(session.trace.steps, tensors)
    head = AutoModelForCausalLM.from_pretrained(model).lm_head.weight
    torch.testing.assert_close(tensors["h"] @ head.T, tensors["z"], rtol=1e-4, atol=1e-4)
    names = ["baseline", "drop:attn=[1]", "drop:mlp=[0,2]"]
    local = ["drop:attn=[1] (local)", "drop:mlp=[0,2] (local)"] if context == "both" else []
    assert json.loads(metadata["rows"]) == names + local
    assert (metadata["model"], metadata["context"]) == (session.trace.header.model.name, context)


def test_only_what_is_asked_for_is_kept(model: Path, tmp_path: Path) -> None:
    for keep in ((), ("h",)):
        folder = tmp_path / "-".join(["kept", *keep])
        session = open_tiny(model, folder / "a.trace.jsonl", keep=keep)
        session.step()
        session.close()
        assert {file.name for file in folder.iterdir()} == {
            "a.trace.jsonl",
            *(f"a.{space}.bin" for space in keep),
        }
    assert {*exported(tmp_path / "kept-h" / "a.trace.jsonl")[0]} == {"step", "h"}
    with pytest.raises(UserError, match="no vectors were kept beside"):
        exported(tmp_path / "kept" / "a.trace.jsonl")


def test_bfloat16_stays_bfloat16(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(model, path, dtype="bfloat16")
    run(session)
    session.close()
    tensors, _ = exported(path)
    assert tensors["h"].dtype == tensors["z"].dtype == torch.bfloat16
    assert_of(session.trace.steps, tensors)


def test_rewinds_and_branches_are_honoured(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(model, path)
    run(session)
    session.rewind(2)
    session.force(1, {0: 65})
    run(session)
    branch = session.trace.steps
    assert_of(branch, exported(path)[0])
    assert [step.block for step in branch] == [0, *range(STEPS, STEPS + 5)]
    session.switch(0)
    assert [step.block for step in session.trace.steps] == [0, 1]
    assert_of(session.trace.steps, exported(path)[0])
    session.step()
    session.close()
    assert_of(session.trace.steps, exported(path)[0])


def test_a_new_prompt_has_files_of_its_own(model: Path, tmp_path: Path) -> None:
    session = open_tiny(model, tmp_path / "a.trace.jsonl")
    session.step()
    session.restart(prompt="Other bytes")
    session.step()
    session.step()
    session.close()
    assert exported(tmp_path / "a.trace.jsonl")[0]["step"].tolist() == [0]
    assert_of(session.trace.steps, exported(tmp_path / "a-2.trace.jsonl")[0])


def test_a_killed_session_loses_no_vector_that_its_trace_names(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(model, path)
    run(session)
    # Not closed; the last step's line is cut short, and a block is half written behind it.
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with (tmp_path / "a.z.bin").open("ab") as file:
        file.write(b"\0" * 1000)
    assert_of(session.trace.steps[:-1], exported(path)[0])


def test_rows_of_a_lane_that_has_ended_are_nan(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(model, path, ignore_eos=False)
    session.step()
    session.step({1: END})
    session.step()
    session.step({0: END})
    session.step()
    session.close()
    ended = exported(path)[0]["z"].isnan().all(dim=-1)
    assert ended.tolist() == [
        [False] * 5,
        [False] * 5,
        [False, True, False, False, False],
        [False, True, False, False, False],
        [True, True, False, True, True],
    ]


def test_a_resumed_session_keeps_the_steps_that_follow(model: Path, tmp_path: Path) -> None:
    first = open_tiny(model, tmp_path / "a.trace.jsonl", max_new_tokens=2)
    run(first)
    first.close()
    session = open_tiny(
        model, tmp_path / "b.trace.jsonl", resume=read_trace(tmp_path / "a.trace.jsonl")
    )
    run(session)
    session.close()
    assert_of(session.trace.steps[2:], exported(tmp_path / "b.trace.jsonl")[0])
    assert [step.block for step in session.trace.steps] == [None, None, 0, 1, 2, 3]


def test_a_full_disk_is_told_and_decoding_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(model, path)
    session.step()

    def full(_self: VectorWriter, _block: bytes) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(VectorWriter, "write", full)
    session.step()
    h = tmp_path / "a.h.bin"
    assert session.recording_error == f"not recorded: cannot write {h} (No space left on device)"
    session.step()
    assert len(session.trace.steps) == 3
    session.close()
    assert_of(session.trace.steps[:1], exported(path)[0])


def test_no_memory_for_a_steps_vectors_leaves_those_of_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.trace.jsonl"
    session, plain = open_tiny(model, path), open_tiny(model, None)
    run(plain)
    for _ in range(2):
        session.step()
    made, to_bytes = [], recording.vector_bytes

    def second_fails(*args) -> bytes:
        made.append(args)
        if len(made) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return to_bytes(*args)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "vector_bytes", second_fails)
        with pytest.raises(UserError, match="out of memory at step 2"):
            session.step()
    run(session)
    session.close()
    assert_of(session.trace.steps, exported(path)[0])
    texts, expected = (
        [[token.text for token in whole(step.lanes)] for step in each.trace.steps]
        for each in (session, plain)
    )
    assert texts == expected


def test_vectors_that_stand_are_never_overwritten(model: Path, tmp_path: Path) -> None:
    old = tmp_path / "a.h.bin"
    old.write_bytes(b"mine")
    session = open_tiny(model, tmp_path / "a.trace.jsonl")
    session.step()
    session.close()
    assert session.recording == tmp_path / "a-2.trace.jsonl"
    assert old.read_bytes() == b"mine"


def test_a_file_that_is_gone_is_missed(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(model, path)
    session.step()
    session.close()
    (tmp_path / "a.z.bin").unlink()
    with pytest.raises(UserError, match=r"cannot read .*a\.z\.bin: No such file"):
        exported(path)
    assert {file.name for file in tmp_path.iterdir()} == {"a.trace.jsonl", "a.h.bin"}


LAYOUT = b'{"dtype":"F32","shape":[3,2]}\n'


@pytest.mark.parametrize(
    ("content", "block", "message"),
    [
        (b"", 0, "holds no vectors of a trace"),
        (b"\xff\xfe\n", 0, "holds no vectors of a trace"),
        (b'{"dtype":"I64","shape":[3,2]}\n', 0, "holds no vectors of a trace"),
        (LAYOUT.replace(b"[3", b"[4") + bytes(32), 0, "its rows are others"),
        (LAYOUT.replace(b"2]", b"0]"), 0, "no whole block 0"),
        (LAYOUT.replace(b"2]", b"-2]") + bytes(24), 0, "no whole block 0"),
        (LAYOUT.replace(b"2]", b"99999999999]") + bytes(24), 0, "no whole block 0"),
        (LAYOUT + bytes(23), 0, "no whole block 0"),
        (LAYOUT + bytes(24), 1, "no whole block 1"),
        (LAYOUT + bytes(24), -1, "no whole block -1"),
    ],
)
def test_damage_is_told_and_leaves_no_file(
    tmp_path: Path, content: bytes, block: int, message: str
) -> None:
    trace = made_up(block)
    path = tmp_path / "a.trace.jsonl"
    (tmp_path / "a.h.bin").write_bytes(content)
    output = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match=message):
        write_safetensors(trace, path, output)
    assert not output.exists()
    output.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        write_safetensors(trace, path, output)
    assert output.read_bytes() == b"mine"


def made_up(block: int) -> Trace:
    from ..support.traces import make_trace

    trace = make_trace(1)
    trace.steps[0] = msgspec.structs.replace(trace.steps[0], block=block)
    return trace


def test_the_smallest_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    numbers = torch.tensor([[1.5, -2.0], [math.inf, math.nan], [0.0, 3.0]])
    (tmp_path / "a.h.bin").write_bytes(LAYOUT + numbers.numpy().tobytes())
    output = tmp_path / "a.safetensors"
    write_safetensors(made_up(0), tmp_path / "a.trace.jsonl", output)
    with safe_open(output, "pt") as file:
        assert torch.equal(file.get_tensor("h")[0].nan_to_num(7), numbers.nan_to_num(7))


# -- the command line -----------------------------------------------------------------------------


def prunetui(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["prunetui", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def test_record_keeps_and_export_writes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path, output = tmp_path / "a.trace.jsonl", tmp_path / "out.safetensors"
    arguments = ["record", "-m", model, "--prompt", "Hi", "-v", "drop:attn=[1]", "-o", path]
    arguments += ["--max-new-tokens", 2, "--ignore-eos", "--keep", "z,h"]
    assert prunetui(monkeypatch, *arguments) == 0
    assert prunetui(monkeypatch, "export", path, "-o", output) == 0
    with safe_open(output, "pt") as file:
        assert file.get_slice("h").get_shape() == [2, 3, 32]
    options = read_trace(path).header.options
    assert options is not None
    assert options.keep == ("h", "z")
    assert command(options).endswith("--keep h,z")
    capsys.readouterr()
    for wrong, message in (
        (["--keep", "h,q", "--no-trace"], "--keep takes h, z or both, as in --keep h,z, and not"),
        (["--keep", "h", "--no-trace"], "--keep writes beside the trace and --no-trace wants none"),
    ):
        assert prunetui(monkeypatch, "record", "-m", model, *wrong) == 2
        assert message in capsys.readouterr().err
