"""Standard streams that lack characters, are full or closed, or have lost their reader."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prunetui.engine.trace.file import read_trace
from prunetui.tui.cli.commands import app
from prunetui.tui.cli.output import FaultTolerantFile

from ..support.command_line import MAIN, WITHOUT_TORCH
from ..support.models import save_model_directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.trace.jsonl"


def shell(
    redirections: str, program: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the program with its streams redirected as a shell does it."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirections}', "bash", sys.executable, "-c", program]
        + [str(argument) for argument in arguments],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
        timeout=60,
    )


FINISHED = """
Session.finished = property(lambda self: len(self.trace.steps) >= 3 and "3 are enough" or None)
"""
RECORD = WITHOUT_TORCH + FINISHED + MAIN
CHINESE = "Trace.marked_text = lambda self, lane: '漢字'\n"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_a_stream_without_a_character_gets_another(encoding: str, path: Path) -> None:
    program = WITHOUT_TORCH + FINISHED + CHINESE + MAIN
    done = shell("", program, "record", "-o", path, PYTHONIOENCODING=encoding)
    printed = done.stdout.decode(encoding)
    assert (done.returncode, done.stderr) == (0, b"\n")
    assert "first ! " in printed
    assert "KL(p | q), p baseline" in printed
    assert f"{'-' * 20}\ndrop:attn=1\n" in printed
    # What a model says is exact.
    assert "\\u6f22\\u5b57" in printed
    assert f"3 steps recorded in {path}" in printed
    assert len(read_trace(path).steps) == 3


def test_a_locale_without_utf_8(path: Path) -> None:
    done = shell(
        *("", RECORD, "record", "-o", path),
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )
    assert (done.returncode, done.stderr) == (0, b"\n")
    assert "first ! " in done.stdout.decode("ascii")


@pytest.mark.parametrize("command", [[], ["record"], ["rank"], ["prune"], ["export"], ["replay"]])
def test_help_in_ascii(command: list[str]) -> None:
    done = shell("", MAIN, *command, "--help", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"+- Options ---" in done.stdout
    assert done.stdout.isascii()


def test_a_complaint_in_ascii() -> None:
    done = shell("", MAIN, "prune", "-v", "漢:1", "-o", "x", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert b"recipe '>\\u6f22:1' does not parse at > (character 1)" in done.stderr


@pytest.mark.parametrize(
    ("redirections", "code", "sentence"),
    [
        (">/dev/full", 1, b"prunetui: cannot write to stdout: No space left on device\n"),
        (">&-", 1, b"prunetui: cannot write to stdout: Bad file descriptor\n"),
        (">/dev/full 2>/dev/full", 1, b""),
        (">&- 2>&-", 1, b""),
        ("2>/dev/full", 0, b""),
        ("2>&-", 0, b""),
        ("<&-", 0, b"\n"),
        ("<&- >&- 2>&-", 1, b""),
    ],
)
def test_what_is_recorded_stays_whatever_becomes_of_the_table(
    redirections: str, code: int, sentence: bytes, path: Path
) -> None:
    done = shell(redirections, RECORD, "record", "-o", path)
    assert done.returncode == code
    assert done.stderr.removeprefix(b"\n") == sentence.removeprefix(b"\n")
    assert (b"3 steps recorded in" in done.stdout) == (code == 0)
    assert path.read_bytes().count(b"\n") == 4
    assert len(read_trace(path).steps) == 3


@pytest.mark.parametrize("redirections", ["2>/dev/full", "2>&-", ">&- 2>&-"])
def test_a_mistake_keeps_its_code(redirections: str) -> None:
    done = shell(redirections, MAIN, "record", "--top-p", "5")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


def test_help_on_a_full_disk() -> None:
    done = shell(">/dev/full", MAIN, "--help")
    assert done.returncode == 1
    assert done.stderr == b"prunetui: cannot write to stdout: No space left on device\n"


def test_rank_and_prune_write_before_they_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("the report")

    tiny = save_model_directory(tmp_path / "tiny")
    for command in ("rank", "prune"):
        monkeypatch.setattr(f"prunetui.tui.cli.{command}.Console", fail)
    ranks, pruned = tmp_path / "rank.json", tmp_path / "pruned"
    for arguments in (
        ("rank", "-m", tiny, "-o", ranks),
        ("prune", "-m", tiny, "-v", "drop:attn=[1]", "-o", pruned),
    ):
        monkeypatch.setattr(sys, "argv", ["prunetui", *map(str, arguments)])
        with pytest.raises(RuntimeError, match="the report"):
            app()
    assert ranks.read_text().endswith("}\n")
    assert (pruned / "model.safetensors").exists()


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    content = b"a" * 300_000
    if os.fork() == 0:
        with io.BufferedWriter(FaultTolerantFile(writes, "w", closefd=False)) as file:
            file.write(content)
        os._exit(0)
    os.close(writes)
    with open(reads, "rb") as file:
        assert file.read() == content
    os.wait()
