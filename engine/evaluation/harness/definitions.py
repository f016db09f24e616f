"""From names and YAML files to lm-eval's tasks; what runs code or cannot be asked is refused."""

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetNotFoundError
from lm_eval.api.registry import metric_registry
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind

from ...errors import UserError
from ...files import expanded
from ...foreign import foreign_code, message
from .sealed import sealed
from .task_names import folders_of, near_names
from .user_yaml import read_user_yaml

_YAML = (".yaml", ".yml")
_GREEDY = {"do_sample", "temperature", "top_p", "top_k", "until"}
_LENGTHS = {"max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"}


@dataclass(frozen=True)
class Definition:
    """A task as lm-eval defines it."""

    task: ConfigurableTask
    group: str | None
    """The group it was asked for by, where lm-eval has a mean of its tasks."""
    weight_by_size: bool = True
    """Whether that mean is over items; else over tasks."""


def open_definitions(name: str) -> list[Definition]:
    """Tasks of a name or YAML file, with their data.

    Raises `UserError` for a name that lm-eval does not know, data that cannot be read, and tasks
    that run code, draw samples or ask for more than text.
    """
    config: dict[str, Any] = {}
    spec, asked = name, [name]
    if name.endswith(_YAML):
        config = read_user_yaml(expanded(name))
        spec, asked = str(config.get("group") or config["task"]), _members(config)
    what = f"task {name} cannot be opened"
    with foreign_code(what), sealed():
        manager, reached = _index(asked)
        if config:
            _check_metrics(spec, config)
            kind = Kind.GROUP if "group" in config else Kind.TASK
            manager.task_index[spec] = Entry(spec, kind, expanded(name))
        for each, config_of_it in [(spec, config), *reached]:
            _check_config(each, config_of_it)
        try:
            loaded = manager.load([spec])
        except Exception as error:
            if why := _explain(error):
                raise UserError(f"{what}: {why}") from error
            raise
    groups: dict[str, tuple[str, bool]] = {}
    # An outer group comes before its inner ones.
    for group in loaded.get("groups", {}).values():
        if means := group.aggregate_metric_list:
            weight_by_size = all(each.weight_by_size for each in means)
            for task in group.get_all_tasks():
                groups.setdefault(task.task_name, (group.name, weight_by_size))
    tasks: dict[str, Any] = loaded["tasks"]
    for task in tasks.values():
        check_task(task)
    return [Definition(task, *groups.get(each, (None, True))) for each, task in tasks.items()]


def _index(names: Iterable[str]) -> tuple[TaskManager, list[tuple[str, dict[str, Any]]]]:
    """Index of the folders that the names, and the groups among them, need; all that they reach."""
    folders: set[Path] = set().union(*map(folders_of, names))
    while True:
        paths: list[str | Path] = sorted(folders)
        manager = TaskManager(include_defaults=False, include_path=paths)
        reached = _reach(names, manager.task_index)
        more = set[Path]().union(*map(folders_of, reached)) - folders
        if not more:
            index = manager.task_index
            for name in reached:
                if name not in index:
                    near = near_names(name)
                    hint = f"; near it are {', '.join(near)}" if near else ""
                    raise UserError(f"lm-eval has no task, group or tag named {name}{hint}")
            return manager, [(each, index[each].cfg or {}) for each in reached]
        folders |= more


def _reach(names: Iterable[str], index: Mapping[str, Entry]) -> list[str]:
    """Names, and those of all members of groups and tags among them."""
    reached: dict[str, None] = {}
    todo = [*names]
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached[name] = None
        entry = index.get(name)
        if entry and entry.kind is Kind.TAG:
            todo += sorted(entry.tags)
        elif entry:
            todo += _members(entry.cfg or {})
    return [*reached]


def _members(config: Mapping[str, Any]) -> list[str]:
    """Names that a group lists, those in groups defined inside it included."""
    names: list[str] = []
    listed = config.get("task")
    for member in listed if isinstance(listed, list) else []:
        if isinstance(member, str):
            names.append(member)
        elif isinstance(member, dict) and isinstance(member.get("task"), list):
            names += _members(member)
        elif isinstance(member, dict) and "dataset_path" not in member:
            names += [str(member[key]) for key in ("group", "task") if key in member]
    return names


def _explain(error: Exception) -> str | None:
    """Why lm-eval could not make a task, where its own words do not say it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, ConnectionError | DatasetNotFoundError):
        return (
            f"its data set is on the Hugging Face hub ({message(error)}); a YAML file with "
            "dataset_path: json reads a local one"
        )
    if isinstance(error, KeyError):
        return f"its data or its definition has no {message(error)}"
    if isinstance(error, StopIteration):
        return "it has no documents"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        task = frame.f_locals.get("self")
        if isinstance(task, ConfigurableTask) and hasattr(task, "task_docs"):
            if not len(task.task_docs):
                return "it has no documents"
            if "" in (frame.f_locals.get("test_choice") or ()):
                return "its first document has an option without text"
    return None


def _check_config(name: str, config: Mapping[str, Any]) -> None:
    """Raise `UserError` for a definition that runs code of others, or asks about images."""
    if any(config.get(key) is not None for key in ("doc_to_image", "doc_to_audio")):
        raise UserError(f"task {name} asks about images or sound, and prunetui reads text alone")
    if config.get("unsafe_code"):
        raise UserError(f"task {name} runs code that the model writes, which prunetui never does")
    if "class" in config:
        raise UserError(
            f"task {name} is a Python class of its own; prunetui takes tasks that are defined in "
            "YAML alone"
        )


def _check_metrics(name: str, config: Mapping[str, Any]) -> None:
    """Raise `UserError` for a metric of a user's file that lm-eval does not have."""
    for metric in config.get("metric_list") or []:
        if metric.get("hf_evaluate") or metric.get("metric") not in metric_registry:
            raise UserError(
                f"task {name} has the metric {metric.get('metric')}, which lm-eval does not have "
                f"itself; it has {', '.join(sorted(metric_registry))}"
            )


def check_task(task: ConfigurableTask) -> None:
    """Raise `UserError` for a task that draws samples, or has scores that lm-eval does not."""
    name = task.config.task
    for metric, aggregate in task.aggregation().items():
        if aggregate is None:
            raise UserError(
                f"task {name} has an aggregation of {metric} that lm-eval does not have"
            )
    for metric, function in task._metric_fn_list.items():  # noqa: SLF001
        if function is None and task.config.process_results is None:
            raise UserError(
                f"task {name} has the metric {metric}, which is code from the Hugging Face hub, "
                "and prunetui does not run that"
            )
    if task.OUTPUT_TYPE == "generate_until":
        _check_generation(name, task.config.generation_kwargs or {})


def _check_generation(name: str | None, settings: dict[str, Any]) -> None:
    if normalize_gen_kwargs(settings).get("do_sample"):
        raise UserError(
            f"task {name} draws samples (do_sample, temperature), and lanes are compared where "
            "each is greedy; set do_sample: false"
        )
    one_beam = {"num_beams"} if settings.get("num_beams") == 1 else set()
    for key in settings.keys() - _GREEDY - _LENGTHS - one_beam:
        raise UserError(
            f"task {name} generates with {key}: {settings[key]}, which prunetui does not have"
        )
