"""Files that prunetui writes: whole or not at all, never over others, private with prompts."""

import errno
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.output_files import check_writable, new_file, write_all, write_new
from prunetui.engine.session.session import open_session
from prunetui.engine.trace.export.formats import to_csv
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.vector_file import write_safetensors
from prunetui.tui.user import prompt_library
from prunetui.tui.user.log_file import log_file, log_to_file
from prunetui.tui.user.state_files import write_copied_text

from ..support.command_line import MAIN, complaint, prunetui
from ..support.models import save_model_directory
from ..support.traces import write_whole_trace


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_that_cannot_be_written_is_answered_with_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for command in ([], ["record"]):
        said = complaint(capsys, *command)
        assert said.startswith(f"prunetui: cannot write {tmp_path}/state/prunetui/")
        assert said.endswith("; -o records to a file elsewhere, --no-trace nowhere")


# -- whole or not at all --------------------------------------------------------------------------


def break_off(path: Path, error: BaseException) -> None:
    with new_file(path) as file:
        write_all(file, b"half")
        assert not path.exists()
        raise error


def write_while_another_does(path: Path) -> None:
    with new_file(path) as file:
        write_all(file, b"three")
        path.write_text("came meanwhile")


def test_a_file_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for error in (OSError(errno.ENOSPC, ""), UserError("no"), KeyboardInterrupt()):
        with pytest.raises((UserError, KeyboardInterrupt)):
            break_off(path, error)
        assert [*tmp_path.iterdir()] == []
    with new_file(path) as file:
        write_all(file, b"whole")
    assert path.read_bytes() == b"whole"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_meanwhile_is_not_overwritten(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(_file: Path, _path: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr("os.link", link)
    path = tmp_path / "a.csv"
    write_new(path, "one")
    assert path.read_text() == "one"
    with pytest.raises(UserError, match="exists already"):
        write_new(path, "two")
    other = tmp_path / "b.csv"
    with pytest.raises(UserError, match="File exists"):
        write_while_another_does(other)
    assert (path.read_text(), other.read_text()) == ("one", "came meanwhile")
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_vectors_that_break_off_leave_nothing(tmp_path: Path) -> None:
    path = write_whole_trace(tmp_path)
    before = sorted(tmp_path.iterdir())
    vectors = tmp_path / "whole.z.bin"
    vectors.write_bytes(vectors.read_bytes()[:-300])
    with pytest.raises(UserError, match="no whole block"):
        write_safetensors(read_trace(path), path, tmp_path / "a.safetensors")
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_no_export(tmp_path: Path, capsys) -> None:
    path = write_whole_trace(tmp_path)
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert "cannot write" in complaint(capsys, "export", path, "-o", tmp_path / "a.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(tmp_path.iterdir()) == before


# -- streams --------------------------------------------------------------------------------------


def export_to_stdout(path: Path, form: str, **streams) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", MAIN, "export", path, "--format", form, "-o", "/dev/stdout"]
    return subprocess.run([*map(str, command)], stderr=subprocess.PIPE, check=False, **streams)


def test_an_export_goes_into_a_pipeline_and_where_the_shell_redirects_it(tmp_path: Path) -> None:
    path = write_whole_trace(tmp_path)
    csv = to_csv(read_trace(path)).encode()
    done = export_to_stdout(path, "csv", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, csv, b"")
    target = tmp_path / "there"
    target.write_bytes(b"before\n")
    with target.open("ab") as file:
        assert export_to_stdout(path, "csv", stdout=file).returncode == 0
    assert target.read_bytes() == b"before\n" + csv


def test_an_export_goes_into_a_named_pipe(tmp_path: Path) -> None:
    path, pipe = write_whole_trace(tmp_path), tmp_path / "pipe"
    os.mkfifo(pipe)
    contents: list[bytes] = []
    reader = threading.Thread(target=lambda: contents.append(pipe.read_bytes()))
    reader.start()
    assert prunetui("export", path, "--format", "csv", "-o", pipe) == 0
    reader.join(10)
    assert contents == [to_csv(read_trace(path)).encode()]
    assert pipe.is_fifo()


def test_a_device_that_takes_nothing_says_so(tmp_path: Path, capsys) -> None:
    path = write_whole_trace(tmp_path)
    for form in ("csv", "safetensors", "parquet"):
        sentence = complaint(capsys, "export", path, "--format", form, "-o", "/dev/full")
        assert "cannot write /dev/full: No space left on device" in sentence
        assert prunetui("export", path, "--format", form, "-o", "/dev/null") == 0
    check_writable(Path("/dev/null"))
    assert Path("/dev/full").is_char_device()


def test_what_is_no_stream_for_it_is_refused(tmp_path: Path, capsys) -> None:
    path = write_whole_trace(tmp_path)
    assert "exists already" in complaint(capsys, "export", path, "--format", "csv", "-o", tmp_path)
    assert "a trace is a file of its own" in complaint(capsys, "record", "-o", "/dev/stdout")
    sentence = complaint(capsys, "prune", "-v", "control", "-o", "/dev/null")
    assert "a checkpoint is a directory" in sentence


# -- private --------------------------------------------------------------------------------------


def test_what_holds_prompts_is_for_its_user_alone(tmp_path: Path) -> None:
    model = save_model_directory(tmp_path / "model")
    path = tmp_path / "new" / "deep" / "a.trace.jsonl"
    options = Options(model=str(model), variants=("control",), keep=("h", "z"), max_new_tokens=1)
    session = open_session(options, path, lambda *_: None)
    session.step()
    session.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["a.h.bin", "a.trace.jsonl", "a.z.bin"]
    assert {mode(file) for file in files} == {0o600}
    assert {mode(path.parent), mode(path.parent.parent)} == {0o700}
    log_to_file()
    copied = write_copied_text("a prompt")
    prompt_library.save_prompt("mine", "a prompt")
    for file in (log_file(), copied, prompt_library.prompts_directory() / "mine.txt"):
        assert (mode(file), mode(file.parent)) == (0o600, 0o700)


def test_what_is_there_keeps_its_permissions(tmp_path: Path, monkeypatch) -> None:
    state = tmp_path / "state" / "prunetui"
    state.mkdir(parents=True)
    (state / "prunetui.log").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    log_to_file()
    write_copied_text("a prompt")
    assert (mode(state), mode(state / "prunetui.log")) == (0o755, 0o644)
    assert mode(state / "copied.txt") == 0o600


def test_exports_are_for_whom_the_umask_says(tmp_path: Path) -> None:
    path = write_whole_trace(tmp_path)
    assert prunetui("export", path, "-o", tmp_path / "new" / "a.csv") == 0
    assert prunetui("export", path, "-o", tmp_path / "new" / "a.safetensors") == 0
    assert mode(tmp_path / "new") == 0o755
    assert {mode(file) for file in (tmp_path / "new").iterdir()} == {0o644}


def test_a_trace_named_by_an_option_is_private(tmp_path: Path) -> None:
    model = save_model_directory(tmp_path / "model")
    output = tmp_path / "out" / "b.trace.jsonl"
    assert (
        prunetui("record", "-m", model, "-v", "control", "--max-new-tokens", 1, "-o", output) == 0
    )
    assert (mode(output), mode(output.parent)) == (0o600, 0o700)
