"""What loads no torch: help, versions, shell completion, and the answer to a mistake."""

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


MISTAKES = [
    (["-v", "drop:foo=2"], "recipe 'drop:▸foo=2' does not parse at ▸ (character 6)"),
    (["-v", "wanda:1.5"], "recipe 'wanda:1.5' has a sparsity of 1.5"),
    (["-v", "./nowhere+drop:attn=2"], "there is no model at ./nowhere"),
    (["-v", "control"] * 256, "256 variants and the baseline are too many lanes"),
    (["-m", "/nowhere"], "there is no model at /nowhere"),
    (["--device", "cpu", "--device-map", "auto"], "leave --device out"),
    (["--calibration", "/nowhere"], "cannot read the calibration text /nowhere"),
]
OF_PROMPTS = [
    (["--prompt-file", "/nowhere"], "cannot read the prompt file /nowhere"),
    (["--prompt", " "], "the prompt is empty"),
    (["--temperature", "-1"], "--temperature is -1.0"),
]


def commands_with_mistakes(directory: Path) -> list[tuple[list[str], str]]:
    prune = ["prune", "-o", str(directory / "pruned")]
    refusals = [([*prune, *mistake], said) for mistake, said in MISTAKES[:3]]
    refusals += [(["rank", *mistake], said) for mistake, said in MISTAKES[4:]]
    for command in ([], ["record"]):
        refusals += [([*command, *mistake], said) for mistake, said in MISTAKES + OF_PROMPTS]
    return refusals


def test_a_mistake_is_answered_before_torch_is_imported(tmp_path: Path) -> None:
    commands = commands_with_mistakes(tmp_path)
    program = f"""
import sys
from prunetui.tui.cli.main import main
for arguments in {[arguments for arguments, _ in commands]}:
    sys.argv = ["prunetui", *arguments]
    try:
        main()
    except SystemExit as done:
        assert done.code == 2, (arguments, done.code)
loaded = {{"numpy", "torch", "transformers", "textual"}}.intersection(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    sentences = done.stderr.splitlines()
    assert len(sentences) == len(commands)
    for sentence, (arguments, said) in zip(sentences, commands, strict=True):
        assert said in sentence, arguments
