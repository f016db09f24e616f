"""Jobs of a sweep: what is evaluated on one load, and the name of its file, which is of content."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..files import exists, expanded, read_text
from ..model.source import find_source
from ..options import Options
from ..results.records import Settings
from ..trace.records import MAX_LANES
from ..variants.calibration_text import file_source, read_calibration_text
from ..variants.recipes import Checkpoint, Drop, Recipe, Restore, Sparsify

_WORD = re.compile(r"[^\s'\"\[\]{}(),;]+")
_NUMBERS = ("dtype", "device_map", "max_new_tokens")
_CALIBRATION = ("calibration_samples", "calibration_length", "calibration_seed")
"""Options that decide numbers, apart from the model and the calibration text."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A task, or those of the demo, in lanes that share their weights."""

    options: Options
    """With one calibration seed, and the recipes as variants."""
    settings: Settings
    base: str
    """Hash of what decides the numbers, apart from the recipes."""
    key: str
    """Name of the file without its ending: the base, and a hash of the recipes."""

    @property
    def description(self) -> str:
        recipes = self.options.variants or ()
        tasks = ", ".join(self.settings.tasks) or "the demo's tasks"
        lanes = f"{len(recipes)} recipes" if len(recipes) != 1 else recipes[0]
        seed = self.options.calibration_seed
        return f"{tasks}: {lanes}" + (f", calibration seed {seed}" if seed else "")


def plan(
    options: Options, settings: Settings, seeds: Sequence[int], recipes: Iterable[Recipe]
) -> list[Job]:
    """Jobs for all recipes, tasks and seeds of calibration, each once.

    All recipes that leave the weights as they are share the jobs of a seed; those that change them
    share jobs with the recipes that change them alike. What needs no calibration goes with the
    first seed. Raises `UserError` for a model or a text that is not there.
    """
    groups: dict[tuple[int, str], list[Recipe]] = {}
    for recipe in recipes:
        for seed in seeds if needs_calibration(recipe) else seeds[:1]:
            groups.setdefault((seed, weights_of(recipe)), []).append(recipe)
    jobs: dict[str, Job] = {}
    for (seed, _), members in groups.items():
        calibrated = any(map(needs_calibration, members))
        own = msgspec.structs.replace(options, calibration_seed=seed if calibrated else 0)
        for task in settings.tasks or [None]:
            asked = msgspec.structs.replace(settings, tasks=(task,) if task else ())
            base = _digest(_content(own, asked, members, calibrated))[:16]
            for first in range(0, len(members), MAX_LANES - 1):
                job = _job(own, asked, base, members[first : first + MAX_LANES - 1])
                jobs.setdefault(job.key, job)
    return [*jobs.values()]


def _job(options: Options, settings: Settings, base: str, recipes: Sequence[Recipe]) -> Job:
    key = f"{base}-{_digest(sorted(recipe.text for recipe in recipes))[:8]}"
    variants = tuple(map(str, recipes))
    return Job(
        options=msgspec.structs.replace(options, variants=variants),
        settings=settings,
        base=base,
        key=key,
    )


def with_recipes(job: Job, recipes: Sequence[Recipe]) -> Job:
    """The same job for other recipes."""
    return _job(job.options, job.settings, job.base, recipes)


def needs_calibration(recipe: Recipe) -> bool:
    """Whether another calibration text could change what a recipe makes of a model."""
    return any(
        (isinstance(part, Drop) and not part.layers)
        or (isinstance(part, Sparsify) and part.method != "magnitude")
        for part in recipe.parts
    )


def weights_of(recipe: Recipe) -> str:
    """Parts up to the last one that changes weights, as text; "" for the baseline's weights."""
    end = 0
    for index, part in enumerate(recipe.parts, start=1):
        # What gives back the baseline's weights changes only others.
        if isinstance(part, Sparsify | Checkpoint) or (end and isinstance(part, Restore)):
            end = index
    return "+".join(map(str, recipe.parts[:end]))


def _content(
    options: Options, settings: Settings, recipes: Iterable[Recipe], calibrated: bool
) -> list[Any]:
    """What decides the numbers, with files, those that recipes name too, by content or identity."""
    numbers = {name: getattr(options, name) for name in _NUMBERS}
    # One GPU computes what another does.
    numbers["device"] = options.device.partition(":")[0]
    if calibrated:
        numbers |= {name: getattr(options, name) for name in _CALIBRATION}
        numbers["text"] = read_calibration_text(options.calibration) or options.calibration
    checkpoints = {
        part.source: _model_identity(part.source)
        for recipe in recipes
        for part in recipe.parts
        if isinstance(part, Checkpoint)
    }
    texts = {
        part.text: read_calibration_text(file_source(part.text))
        for recipe in recipes
        for part in recipe.parts
        if isinstance(part, Drop) and part.text
    }
    questions = msgspec.to_builtins(settings)
    questions["tasks"] = [_task_identity(task) for task in settings.tasks]
    if texts:
        # Others keep the names that they had.
        numbers["texts"] = texts
    return [_model_identity(options.model), numbers, checkpoints, questions]


def _model_identity(model: str) -> list[Any]:
    """Hub id, or the names, sizes and modification times of a model's files."""
    source = find_source(model)
    if not exists(source):
        return [str(source)]
    return _identities(source.iterdir() if source.is_dir() else [source])


def _task_identity(task: str) -> list[Any]:
    """Name of a task, or the text of its file and the identities of files named in it.

    Of a folder in BEIR's layout, the identities of its files.
    """
    path = expanded(task)
    if not exists(path):
        return [task]
    if path.is_dir():
        return _identities(path.rglob("*"))
    text = read_text(path, "task file")
    # Tasks in YAML name their data, and what they include.
    named = {file for word in _WORD.findall(text) for file in (Path(word), path.parent / word)}
    return [text, *_identities(named)]


def _identities(paths: Iterable[Path]) -> list[Any]:
    """Names, sizes and modification times in ns of those of the paths that are files."""
    return sorted(
        (path.name, (stat := path.stat()).st_size, stat.st_mtime_ns)
        for path in paths
        if exists(path) and path.is_file()
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
