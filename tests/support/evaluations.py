"""A made-up evaluation whose numbers fit together, for tests of what is computed from them: a group
of two tasks, a control, options of several tokens, prompts without a score, numbers that are not
there. `results` in this folder makes one for tests that only carry the records about."""

import math
import random
from typing import Any

from prunetui.engine.options import Options
from prunetui.engine.results.records import (
    Answer,
    End,
    Header,
    Item,
    Kind,
    Match,
    Metric,
    Option,
    Settings,
    Task,
)
from prunetui.engine.results.results import Results
from prunetui.engine.trace.records import Drift, Lane

from .traces import HOSTILE, make_header

ACC = Metric(name="acc")
ACC_NORM = Metric(name="acc_norm")
STRICT = Metric(name="exact_match", filter="strict-match")
FLEXIBLE = Metric(name="exact_match", filter="flexible-extract")
PERPLEXITY = Metric(name="perplexity", higher_is_better=False, mean=False)
NDCG = Metric(name="ndcg_at_10")

VARIANTS = ("drop:attn=4", "drop:mlp=8", "control")
NOISE_FLOOR = 0.05


def make_task(name: str, kind: Kind, items: int, metrics: list[Metric], **fields: Any) -> Task:
    """A task whose data set has four items more than are asked."""
    return Task(
        name=name,
        kind=kind,
        items=items,
        total=items + 4,
        metrics=metrics,
        version="1",
        digest=f"digest of {name}",
        **fields,
    )


def make_evaluation_header(tasks: list[Task], variants: tuple[str, ...] = VARIANTS) -> Header:
    drops = {"drop:attn=4": ([1, 2, 5, 6], []), "drop:mlp=8": ([], [0, 1, 2, 3, 4, 5, 6, 7])}
    lanes = [Lane(name="baseline", recipe=None, dropped_attention=[], dropped_mlp=[])]
    for name in variants:
        attention, mlp = drops.get(name, ([], []))
        lanes.append(Lane(name=name, recipe=name, dropped_attention=attention, dropped_mlp=mlp))
    return Header(
        version=1,
        model=make_header().model,
        lanes=lanes,
        fingerprints=["weights"] * len(lanes),
        options=Options(variants=variants),
        settings=Settings(tasks=tuple(task.name for task in tasks)),
        tasks=tasks,
        noise_floor=NOISE_FLOOR,
        versions={"prunetui": "0.1.0", "lm_eval": "0.4.13"},
        created="2026-01-01T00:00:00Z",
        notes=["A note with [markup]."],
    )


def make_tasks() -> list[Task]:
    return [
        make_task("additions", "options", 8, [ACC, ACC_NORM]),
        make_task("mmlu_anatomy", "options", 6, [ACC], group="mmlu", num_fewshot=5),
        make_task("mmlu_virology", "options", 3, [ACC], group="mmlu", num_fewshot=5),
        make_task("lambada", "likelihood", 6, [ACC, PERPLEXITY]),
        make_task("gsm8k", "generation", 8, [STRICT, FLEXIBLE], num_fewshot=5),
        make_task("prompts", "generation", 3, []),
        make_task("docstrings", "retrieval", 7, [NDCG]),
    ]


def make_evaluation(variants: tuple[str, ...] = VARIANTS) -> Results:
    """A complete evaluation of `make_tasks`; take items or ends away for one that still runs."""
    tasks = make_tasks()
    results = Results(header=make_evaluation_header(tasks, variants))
    for task in tasks:
        results.items[task.name] = [make_item(task, n, variants) for n in range(task.items)]
        scores: list[dict[str, float | None]] = [
            {m.key: 10 * (1 + strength) for m in task.metrics if not m.mean}
            for strength in (0.0, *map(_strength, variants))
        ]
        results.ends[task.name] = End(task=task.name, scores=scores)
    return results


def make_item(task: Task, index: int, variants: tuple[str, ...] = VARIANTS) -> Item:
    rng = random.Random(f"{task.name} {index}")
    strengths = [0.0, *(_strength(name) for name in variants)]
    awkward = HOSTILE[index % len(HOSTILE)]
    fields: dict[str, Any] = {}
    if task.kind in ("options", "likelihood"):
        fields = _rated(task, rng, strengths)
    elif task.kind == "generation":
        fields = _written(task, rng, strengths)
    else:
        fields = _found(rng, strengths)
    drift: list[Drift | None] = [
        make_item_drift(strength, rng.random()) for strength in strengths[1:]
    ]
    if task.name == "additions" and index == 2 and len(drift) > 1:
        # The logits of the second variant are not numbers here.
        lost = dict.fromkeys(("cos_z", "cos_p", "kl"))
        drift[1] = make_item_drift(1, 0.5, not_comparable=True, **lost)
    return Item(
        task=task.name,
        index=index,
        hash=f"hash {task.name} {index}",
        question=f"Question {index} {awkward}?",
        contexts=[f"Examples.\n\nQuestion {index} {awkward}?\nAnswer:"],
        tokens=[1, 2, 3, 4 + index],
        truncated=17 if task.name == "gsm8k" and index == 1 else 0,
        doc={"question": f"Question {index} {awkward}?"},
        drift=[] if task.kind == "retrieval" else drift,
        **fields,
    )


def make_item_drift(strength: float, chance: float, **fields: Any) -> Drift:
    """Drift that grows with the strength; none for strength 0."""
    far = strength * (0.5 + chance)
    numbers: dict[str, Any] = {
        "cos_h": 1 - 0.4 * far,
        "cos_z": 1 - 0.1 * far,
        "cos_p": 1 - 0.6 * far,
        "cos_z_centred": 1 - 0.2 * far,
        "par_h": -0.1 * far,
        "orth_h": 0.8 * far,
        "par_z": -0.05 * far,
        "orth_z": 0.4 * far,
        "est_h": 0.32 * far**2,
        "est_z": 0.08 * far**2,
        "est_p": 0.9 * far,
        "kl": 3 * far,
        "kl_rev": 4 * far,
        "est_kl": 2 * far,
        "top1": far < 0.5,
        "dp": -0.3 * far,
        "logq": -1 - far,
    }
    return Drift(**{**numbers, **fields})


def _strength(name: str) -> float:
    """How far a variant is from the baseline: 0 for a control."""
    return 0.0 if name == "control" else 1.0 if "mlp" in name else 0.2


def _rated(task: Task, rng: random.Random, strengths: list[float]) -> dict[str, Any]:
    """Four options of one to three tokens, or the one text of a likelihood."""
    count = 4 if task.kind == "options" else 1
    gold = rng.randrange(count)
    base = [-1 - 3 * rng.random() - (n != gold) * 2 * rng.random() for n in range(count)]
    noise = [rng.gauss(0, 2) for _ in range(count)]
    answers: list[Answer] = []
    for strength in strengths:
        logprobs = [b + strength * n for b, n in zip(base, noise, strict=True)]
        option = max(range(count), key=lambda n, of=logprobs: of[n])
        right = option == gold if count > 1 else logprobs[0] > -2.5
        scores: dict[str, Any] = {"acc,none": float(right)}
        if ACC_NORM in task.metrics:
            lengths = [logprob / (n + 1) for n, logprob in enumerate(logprobs)]
            scores["acc_norm,none"] = float(max(range(4), key=lambda n, of=lengths: of[n]) == gold)
        if PERPLEXITY in task.metrics:
            scores["perplexity,none"] = logprobs[0]
        answers.append(
            Answer(
                scores=scores,
                option=option if count > 1 else None,
                logprobs=list(logprobs),
                greedy=[logprob > -2.5 for logprob in logprobs],
            )
        )
    options = [
        Option(text=f" option {n}" + " and" * (n % 3), tokens=list(range(10, 11 + n % 3)))
        for n in range(count)
    ]
    return {
        "gold": options[gold].text,
        "options": options,
        "gold_option": gold,
        "answers": answers,
    }


def _written(task: Task, rng: random.Random, strengths: list[float]) -> dict[str, Any]:
    """Texts of 12 tokens; a variant differs from some step on, or nowhere. A strong one that
    differs early goes on in repetition."""
    tokens = [rng.randrange(5, 90) for _ in range(12)]
    right = rng.random() < 0.7
    chance = rng.random()
    answers: list[Answer] = []
    for strength in strengths:
        step = math.floor(chance / strength * 4) if strength else 12
        own = tokens[:step] + [99 - token for token in tokens[step:]]
        if strength == 1 and step < 6:
            own += [3, 4] * 12
        kept = right and step >= 4
        scores = {STRICT.key: float(kept), FLEXIBLE.key: float(kept or chance < 0.3)}
        answers.append(
            Answer(
                scores=scores if task.metrics else {},
                text=f" It is {sum(own)}." + "\x1b[31m" * (chance < 0.2),
                tokens=own,
                filtered={"strict-match": f"{sum(own)}", "flexible-extract": f"{sum(own)}."}
                if task.metrics
                else {},
                divergence=step if step < 12 else None,
                kl=strength * (0.2 + chance),
            )
        )
    return {
        "gold": "42" if task.metrics else "",
        "answers": answers,
        "until": ["Question:"],
        "max_new_tokens": 36,
    }


def _found(rng: random.Random, strengths: list[float]) -> dict[str, Any]:
    """Ten documents of twenty, of which document 3 is relevant."""
    base = [rng.random() for _ in range(20)]
    noise = [rng.gauss(0, 0.5) for _ in range(20)]
    answers: list[Answer] = []
    for strength in strengths:
        similar = [b + strength * n for b, n in zip(base, noise, strict=True)]
        best = sorted(range(20), key=lambda n, of=similar: -of[n])[:10]
        place = best.index(3) if 3 in best else None
        answers.append(
            Answer(
                scores={NDCG.key: 0.0 if place is None else 1 / math.log2(place + 2)},
                matches=[
                    Match(id=f"d{n}", similarity=similar[n] / 4, relevance=int(n == 3))
                    for n in best
                ],
                cosine=1 - 0.3 * strength * (0.5 + base[0]),
            )
        )
    return {"gold": "d3", "answers": answers}
