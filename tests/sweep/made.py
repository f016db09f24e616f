"""Made-up evaluations of a sweep, of scores that a test chooses."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from prunetui.engine.options import Options
from prunetui.engine.results.records import (
    Answer,
    End,
    Header,
    Item,
    Kind,
    Metric,
    Option,
    Settings,
    Task,
)
from prunetui.engine.results.results import Results
from prunetui.engine.trace.records import Drift, Lane
from prunetui.engine.variants.recipes import Drop, parse

from ..support.results import make_header

METRIC = Metric(name="acc")


def make_task(name: str, kind: Kind = "options", items: int = 0, **others: Any) -> Task:
    return Task(
        name=name,
        kind=kind,
        items=items,
        total=items,
        metrics=others.pop("metrics", [METRIC]),
        version="1",
        digest=others.pop("digest", f"digest of {name}"),
        **others,
    )


def make_drift(kl: float | None, cos: float | None = 0.9) -> Drift:
    names = [name for name in Drift.__struct_fields__ if name not in ("top1", "not_comparable")]
    numbers: dict[str, Any] = dict.fromkeys(names, 0.0)
    numbers |= {"kl": kl, "cos_h": cos, "cos_z": cos, "cos_p": cos}
    return Drift(**numbers, top1=True)


def make_lane(text: str | None) -> Lane:
    recipe = parse(text or "control")
    counts = [part.count for part in recipe.parts if isinstance(part, Drop)]
    return Lane(
        name=text or "baseline",
        recipe=text,
        dropped_attention=[*range(sum(counts))],
        dropped_mlp=[],
    )


def evaluation(
    recipes: Sequence[str],
    scores: Sequence[tuple[Task, Sequence[Sequence[float | None]]]],
    *,
    kl: Mapping[str, Sequence[Sequence[float | None]]] | None = None,
    options: int = 4,
    seed: int = 0,
    settings: Settings | None = None,
) -> Results:
    """A complete evaluation: per task the lanes' scores of each item, baseline first, and by name
    of the task the variants' KL."""
    tasks = {
        name: msgspec.structs.replace(task, items=len(lanes[0]), total=len(lanes[0]))
        for task, lanes in scores
        for name in [task.name]
    }
    made = make_header(variants=0, kinds=[])
    header: Header = msgspec.structs.replace(
        made,
        lanes=[make_lane(None), *map(make_lane, recipes)],
        fingerprints=["weights"] * (len(recipes) + 1),
        tasks=[*tasks.values()],
        options=Options(variants=tuple(recipes), calibration_seed=seed),
        settings=settings or Settings(),
    )
    results = Results(header)
    for task, lanes in scores:
        results.items[task.name] = [
            Item(
                task=task.name,
                index=index,
                hash=f"{index}",
                question=f"{index}",
                gold="A",
                contexts=["?"],
                tokens=[1],
                answers=[
                    Answer(scores={METRIC.key: value} if value is not None else {})
                    for value in of_item
                ],
                drift=[
                    make_drift(kl[task.name][lane][index] if kl else 0.5)
                    for lane in range(len(recipes))
                ],
                options=[Option(text="x", tokens=[1])] * (options if task.kind == "options" else 0),
            )
            for index, of_item in enumerate(zip(*lanes, strict=True))
        ]
        results.ends[task.name] = End(task=task.name, scores=[{}] * (len(recipes) + 1))
    return results
