"""Options that `eval` and `sweep` share, as settings."""

from pathlib import Path

import pytest
import typer
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.results.records import Settings
from prunetui.tui.cli.evaluation_options import EVALUATION_OPTIONS, with_evaluation_settings
from prunetui.tui.cli.options import with_decoding_options
from typer.testing import CliRunner


def parsed(*arguments: str) -> tuple[Options, Settings]:
    """What a command gets that takes both kinds of options."""
    app = typer.Typer(pretty_exceptions_enable=False)
    calls: list[tuple[Options, Settings]] = []

    @app.command()
    @with_decoding_options(EVALUATION_OPTIONS)
    @with_evaluation_settings()
    def command(*, options: Options, settings: Settings) -> None:
        calls.append((options, settings))

    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    return calls[0]


def test_nothing_given_is_the_demo() -> None:
    assert parsed() == (Options(), Settings())


def test_every_option_arrives(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    options, settings = parsed(
        *("-m", "some/model", "-v", "drop:attn=4", "--calibration-seed", "3"),
        *("--tasks", "boolq, rte", "--tasks", str(folder), "--num-fewshot", "5", "--limit", "7"),
        *("--batch-size", "2", "--apply-chat-template", "--seed", "9", "--pooling", "mean"),
        *("--instruction", "Find it: ", "--max-tokens", "64"),
    )
    assert options == Options(model="some/model", variants=("drop:attn=4",), calibration_seed=3)
    assert settings == Settings(
        tasks=("boolq", "rte", str(folder)),
        num_fewshot=5,
        limit=7,
        batch_size=2,
        apply_chat_template=True,
        seed=9,
        pooling="mean",
        instruction="Find it: ",
        max_tokens=64,
    )


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("boolq,,rte", "'boolq,,rte' has an empty name"),
        ("", "'' has an empty name"),
        ("boolq,rte,boolq", "names 'boolq' twice"),
        ("\udcff", "is no UTF-8 text"),
    ],
)
def test_bad_lists_of_tasks_are_refused(tasks: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parsed("--tasks", tasks)
