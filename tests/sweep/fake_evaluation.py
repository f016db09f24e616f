"""An evaluation without a model: made-up items, and every way to fail."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.progress import Progress
from prunetui.engine.results.file import ResultsWriter
from prunetui.engine.results.records import End, Header, Settings
from prunetui.engine.trace.records import Lane
from prunetui.engine.variants.recipes import Drop, parse

from ..support.results import make_header, make_item

ITEMS = 6


def header_of(options: Options, settings: Settings, left_out: str = "") -> Header:
    """Header of one task, named as it was asked for, without the variants left out."""
    recipes = [parse(text) for text in options.variants or ()]
    lanes = [Lane(name="baseline", recipe=None, dropped_attention=[], dropped_mlp=[])]
    for recipe in recipes:
        if recipe.text != left_out:
            counts = [part.count for part in recipe.parts if isinstance(part, Drop)]
            lanes.append(
                Lane(
                    name=recipe.name,
                    recipe=recipe.text,
                    dropped_attention=[*range(sum(counts))],
                    dropped_mlp=[],
                )
            )
    header = make_header(variants=0, items=ITEMS, kinds=["options"])
    (name,) = settings.tasks
    return msgspec.structs.replace(
        header,
        lanes=lanes,
        fingerprints=["weights"] * len(lanes),
        options=options,
        settings=settings,
        tasks=[msgspec.structs.replace(header.tasks[0], name=name)],
        notes=[f"variant {left_out} is left out: out of memory"] if left_out else [],
    )


def evaluate(
    options: Options,
    settings: Settings,
    file: Path,
    progress: Progress,
    report: Callable[[Any], None],  # noqa: ARG001
    *,
    resume: bool,
) -> None:
    """Write the items of one task; its name says what goes wrong on the way."""
    (task,) = settings.tasks
    with (file.parent / "calls").open("a") as calls:
        calls.write(f"{task} {' '.join(options.variants or ())} {os.getpid()}\n")
    print("what libraries print is no answer")
    progress("loading", None)
    if task == "mistake":
        raise UserError("there is no task mistake; near names: boolq")
    if task == "wrong":
        raise ZeroDivisionError
    left_out = "drop:attn=2" if task == "memory" else ""
    if resume:
        writer, results = ResultsWriter.resume(file)
    else:
        writer, results = ResultsWriter(file, header_of(options, settings, left_out)), None
    done = len(results.items.get(task, [])) if results else 0
    lanes = len((results.header if results else header_of(options, settings, left_out)).lanes)
    for index in range(done, ITEMS):
        if index == ITEMS // 2:
            if task == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if task == "broken-off" and not resume:
                writer.close()
                raise UserError("the disk is full")
            if task == "waits" and not resume:
                time.sleep(600)
        item = make_item("options", index, lanes - 1)
        writer.write([msgspec.structs.replace(item, task=task)])
        progress(task, (index + 1) / ITEMS)
    writer.write([End(task=task, scores=[{}] * lanes)])
    writer.close()
