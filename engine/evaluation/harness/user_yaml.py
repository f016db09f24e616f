"""Task definitions that a user wrote, which must name no code."""

from pathlib import Path
from typing import Any

import yaml

from ...errors import UserError, reason
from .task_names import is_lm_evals


class _FunctionError(Exception):
    """A tag that names a Python function."""


class _Loader(yaml.SafeLoader):
    """Loader of plain data: every tag that stands for code is an error."""


def _refuse(_: yaml.SafeLoader, node: yaml.Node) -> None:
    raise _FunctionError(str(node.value))


_Loader.add_constructor("!function", _refuse)


def read_user_yaml(file: Path) -> dict[str, Any]:
    """The definition in a file, with what it includes.

    Raises `UserError` for a file that cannot be read, does not parse, names code to execute or
    defines neither a task nor a group.
    """
    config = _read(file, set())
    if not any(isinstance(config.get(key), str) for key in ("task", "group")):
        raise UserError(f"{file} defines neither a task nor a group: it needs a line `task: NAME`")
    return config


def _read(file: Path, including: set[Path]) -> dict[str, Any]:
    try:
        config = yaml.load(file.read_text(), _Loader)
    except OSError as error:
        raise UserError(f"cannot read {file}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text") from error
    except _FunctionError as error:
        raise UserError(
            f"{file} has the Python function {error} run, which prunetui does not do for files "
            "outside lm-eval's package; write it as a Jinja template"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file} is no YAML: {_place(error)}") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is no task: it has no `key: value` lines")
    if (config.get("dataset_kwargs") or {}).get("trust_remote_code"):
        raise UserError(
            f"{file} has code of the data set run (trust_remote_code), which prunetui does not do"
        )
    listed = config.pop("include", [])
    included: dict[str, Any] = {}
    for name in listed if isinstance(listed, list) else [listed]:
        other = (file.parent / str(name)).resolve()
        if other in including:
            raise UserError(f"{file} includes itself through {other}")
        if not is_lm_evals(other):
            included |= _read(other, including | {other})
    return included | config


def _place(error: Exception) -> str:
    """What is wrong and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    text = " ".join(problem.split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {text}" if mark else text
