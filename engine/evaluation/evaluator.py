"""An evaluation: every task in all lanes, chunk by chunk, into an append-only file."""

import datetime
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..errors import OptionError, UserError, reason
from ..model.description import check_same_model, describe_model
from ..model.fingerprint import weights_fingerprint
from ..options import Options, default_variants
from ..progress import Progress
from ..results.file import ResultsWriter
from ..results.records import VERSION, Header, Line, Settings
from ..results.results import Results
from ..variants.builder import VariantBuilder, lane_records, open_builder
from ..variants.recipes import parse
from .generator import LaneGenerator
from .lanes import EvaluatedLanes
from .reader import LaneReader
from .requests import Request
from .task import EvaluationTask
from .tasks import open_tasks

Report = Callable[[Results, float], None]
"""Called with the results so far and the number of items answered, a part of a chunk included."""

NOISE_TEXTS = 8
"""Texts on which the noise floor is measured."""
NOISE_TOKENS = (16, 96)
"""Range of their lengths."""


def evaluate(
    options: Options,
    settings: Settings,
    file: Path,
    progress: Progress,
    report: Report,
    *,
    resume: bool = False,
) -> Results:
    """Answer all items of the tasks in all lanes, into a new file, or one to `resume`.

    Whatever ends it, the file has every chunk that was answered. Raises `UserError` for what the
    options, the settings or a task got wrong, if a file to resume is of another model, recipe,
    dtype or task, and if memory runs out.
    """
    builder, lanes, left_out = _load(options, settings, progress)
    reader, generator = LaneReader(lanes), LaneGenerator(lanes)
    progress("reading the tasks", None)
    tasks = open_tasks(settings.tasks, lanes, reader, generator)
    if resume:
        writer, results = ResultsWriter.resume(file)
    else:
        writer, results = None, None
    try:
        header = _header(lanes, tasks, 0.0 if results else _noise_floor(builder, lanes, reader))
        if results is not None:
            _check_resumable(file, results.header, header)
        if writer is None or results is None:
            notes = [*header.notes, *left_out]
            results = Results(msgspec.structs.replace(header, notes=notes))
            writer = ResultsWriter(file, results.header)
        report(results, float(sum(map(len, results.items.values()))))
        for task in tasks:
            _answer(task, writer, results, report)
    finally:
        if writer is not None:
            writer.close()
    return results


def _load(
    options: Options, settings: Settings, progress: Progress
) -> tuple[VariantBuilder, EvaluatedLanes, list[str]]:
    """Load the model and build the lanes; a sentence for each lane that memory has no room for."""
    recipes = [parse(text) for text in options.variants or ()]
    builder = open_builder(options, progress)
    if options.variants is None:
        variants = default_variants(len(builder.baseline.anatomy.layers))
        options = msgspec.structs.replace(options, variants=variants)
        recipes = [parse(text) for text in variants]
    models, left_out = builder.build_lanes(recipes)
    if left_out:
        built = tuple(str(lane.recipe) for lane in models[1:])
        options = msgspec.structs.replace(options, variants=built)
    lanes = EvaluatedLanes(builder.loaded, models, options, settings, progress)
    return builder, lanes, left_out


def _noise_floor(builder: VariantBuilder, lanes: EvaluatedLanes, reader: LaneReader) -> float:
    """Noise floor on the calibration text, cut to texts of different lengths."""
    lanes.progress("measuring the noise floor", None)
    tokens = [token for window in builder.calibration.windows() for token in window.tolist()]
    shortest, longest = NOISE_TOKENS
    step = (longest - shortest) // (NOISE_TEXTS - 1)
    lengths = range(shortest, longest + 1, step)
    texts = [tuple(tokens[n * longest :][:length]) for n, length in enumerate(lengths)]
    return reader.noise_floor([Request(text[:-1], text[-1:]) for text in texts if len(text) > 1])


def _header(lanes: EvaluatedLanes, tasks: list[EvaluationTask], noise_floor: float) -> Header:
    models = lanes.models
    groups = {lane.group for lane in models}
    fingerprints = {group: weights_fingerprint(group.model) for group in groups}
    notes = [note for group in groups for note in group.notes]
    return Header(
        version=VERSION,
        model=describe_model(lanes.loaded),
        lanes=lane_records(models),
        fingerprints=[fingerprints[lane.group] for lane in models],
        options=lanes.options,
        settings=lanes.settings,
        tasks=[task.record for task in tasks],
        noise_floor=noise_floor,
        versions=_versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        notes=[*dict.fromkeys(notes)],
    )


def _versions() -> dict[str, str]:
    """Versions of what computed the numbers; without lm-eval where it is not installed."""
    versions = {}
    for package in ("prunetui", "torch", "transformers", "lm-eval"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _answer(task: EvaluationTask, writer: ResultsWriter, results: Results, report: Report) -> None:
    """Answer what the file lacks of a task.

    Of a chunk that is there in part all is computed again: an item's bits depend on its batch.
    """
    name, items = task.record.name, results.items.setdefault(task.record.name, [])
    if name in results.ends:
        return
    done = sum(len(of_task) for of_task in results.items.values()) - len(items)
    for first in range(0, task.record.items, task.chunk):
        last = min(first + task.chunk, task.record.items)
        if len(items) >= last:
            continue
        answered = task.answer(
            first,
            last,
            lambda fraction, first=first, last=last: report(
                results, done + first + fraction * (last - first)
            ),
        )
        new = answered[len(items) - first :]
        _append(writer, new)
        items += new
        report(results, done + last)
    end = task.end(items)
    _append(writer, [end])
    results.ends[name] = end


def _append(writer: ResultsWriter, lines: Sequence[Line]) -> None:
    try:
        writer.write(lines)
    except OSError as error:
        raise UserError(
            f"cannot write {writer.path}: {reason(error)}; once that is mended, --resume goes on "
            "with it"
        ) from error


def _check_resumable(file: Path, old: Header, new: Header) -> None:
    """Raise `UserError` if what would be appended to a file is not of what it has."""
    if old.model.dtype != new.model.dtype:
        raise OptionError(
            f"{file} was computed in {old.model.dtype} and this is {new.model.dtype}; "
            f"--dtype {old.model.dtype} goes on with it"
        )
    check_same_model(old.model, new.model)
    if len(old.lanes) != len(new.lanes):
        raise UserError(
            f"{file} has {len(old.lanes)} lanes and memory has room for {len(new.lanes)} now; "
            "what has room for all of them goes on with it"
        )
    for number, (before, after) in enumerate(zip(old.lanes, new.lanes, strict=True)):
        same_weights = old.fingerprints[number] == new.fingerprints[number]
        if before != after or not same_weights:
            what = "drops other sublayers" if same_weights else "has other weights"
            raise OptionError(
                f"{after.name} {what} than when {file} was begun; the calibration text and the "
                "checkpoints of then would go on with it, or -o begins a new file"
            )
    digests = {task.name: task for task in new.tasks}
    for task in old.tasks:
        current = digests.get(task.name)
        if current is None or current.digest != task.digest:
            now = (
                "is not there any more" if current is None else f"is version {current.version} now"
            )
            raise OptionError(
                f"task {task.name} of {file} was version {task.version} and {now}, or its items "
                "have changed; the lm-eval and the files of then would go on with it, or -o begins "
                "a new file"
            )
