"""`prunetui` without a command: help, versions and shell completion, none of which loads torch."""

import importlib.resources
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ..support.command_line import prunetui

PROGRAM = """
import sys
from prunetui.tui.cli.main import main
sys.argv[0] = "prunetui"
try:
    main()
finally:
    loaded = {"numpy", "numba", "torch", "transformers", "textual"}.intersection(sys.modules)
    assert not loaded, loaded
"""
"""Program that runs the command and fails if a package that is slow to import is loaded."""


def run_in_bash(*arguments: str, **environment: str) -> str:
    """Run the command as a child of bash, which completion looks for; return its stdout."""
    return subprocess.run(
        ["bash", "-c", '"$@"; exit $?', "bash", sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


def test_version_names_what_decodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert prunetui("--version") == 0
    assert capsys.readouterr().out == (
        f"prunetui {metadata.version('prunetui')}, Python {platform.python_version()}, "
        f"torch {metadata.version('torch')}, transformers {metadata.version('transformers')}\n"
    )


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_an_option_that_only_prints_imports_no_torch(option: str) -> None:
    assert "prunetui" in run_in_bash(option)


def test_completion_lists_commands_and_options() -> None:
    bash = {"_PRUNETUI_COMPLETE": "complete_bash"}
    words = {"COMP_WORDS": "prunetui re", "COMP_CWORD": "1"}
    assert run_in_bash(**bash, **words).split() == ["record", "replay"]
    words = {"COMP_WORDS": "prunetui prune --f", "COMP_CWORD": "2"}
    assert run_in_bash(**bash, **words).split() == ["--format"]


def test_show_completion_prints_a_script_for_the_shell() -> None:
    assert run_in_bash("--show-completion").endswith(
        "complete -o default -F _prunetui_completion prunetui\n"
    )


def test_install_completion_writes_to_the_home_directory(tmp_path: Path) -> None:
    assert "bash completion installed" in run_in_bash("--install-completion", HOME=str(tmp_path))
    script = tmp_path / ".bash_completions" / "prunetui.sh"
    assert "_PRUNETUI_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize("package", ["engine", "themes", "tui"])
def test_each_package_says_that_it_is_typed(package: str) -> None:
    assert importlib.resources.files(f"prunetui.{package}").joinpath("py.typed").is_file()
