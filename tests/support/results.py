"""Made-up evaluations for tests that need no model: deterministic, and full of awkward text."""

import random
from pathlib import Path
from typing import Any

from prunetui.engine.options import Options
from prunetui.engine.results.file import ResultsWriter
from prunetui.engine.results.records import (
    SUFFIX,
    Answer,
    End,
    Header,
    Item,
    Kind,
    Line,
    Match,
    Metric,
    Option,
    Settings,
    Task,
)
from prunetui.engine.results.results import Results
from prunetui.engine.trace.records import Drift

from .traces import HOSTILE
from .traces import make_header as make_trace_header

KINDS: list[Kind] = ["options", "likelihood", "generation", "retrieval"]
METRICS = {
    "options": [Metric(name="acc"), Metric(name="acc_norm")],
    "likelihood": [Metric(name="perplexity", higher_is_better=False, mean=False)],
    "generation": [Metric(name="exact_match", filter="strict-match")],
    "retrieval": [Metric(name="ndcg_at_10")],
}


def make_drift(rng: random.Random) -> Drift:
    names = [name for name in Drift.__struct_fields__ if name not in ("top1", "not_comparable")]
    numbers: dict[str, Any] = {name: rng.random() for name in names}
    return Drift(**numbers, top1=rng.random() < 0.5)


def make_header(variants: int = 2, items: int = 6, kinds: list[Kind] = KINDS) -> Header:
    """A made-up header with one task of each kind, named after it."""
    trace = make_trace_header(variants)
    return Header(
        version=1,
        model=trace.model,
        lanes=trace.lanes,
        fingerprints=["weights"] * len(trace.lanes),
        options=Options(variants=tuple(lane.name for lane in trace.lanes[1:])),
        settings=Settings(limit=items),
        tasks=[
            Task(
                name=kind,
                kind=kind,
                items=items,
                total=items + 10,
                metrics=METRICS[kind],
                version="1",
                digest=f"digest of {kind}",
                group="choice" if kind == "options" else None,
                num_fewshot=2,
                config={"task": kind, "doc_to_text": "{{question}}"},
                notes=[f"a note on {kind}"],
            )
            for kind in kinds
        ],
        noise_floor=1e-5,
        versions={"prunetui": "0.1.0", "lm-eval": "0.4.13"},
        created="2026-01-01T10:20:30+00:00",
        notes=["a note on all"],
    )


def make_item(kind: Kind, index: int, variants: int = 2) -> Item:
    """A made-up item; the baseline is right but for every fourth, variant v wrong in turns."""
    rng = random.Random(f"{kind} {index}")
    text = HOSTILE[index % len(HOSTILE)]
    target = str(index % 4 if kind == "options" else index)
    context = f"Question {index}{text}\nAnswer:"
    common: dict[str, Any] = {
        "task": kind,
        "index": index,
        "target": target,
        "hash": f"{index:064x}",
        "question": f"Question {index}{text}",
        "contexts": [context],
        "tokens": [1, 2, index],
        "answers": [_answer(kind, rng, index, lane) for lane in range(variants + 1)],
        "drift": [make_drift(rng) for _ in range(variants)],
        "doc": {"question": context, "answer": index % 4, "nested": {"list": [1, None, 0.1]}},
    }
    match kind:
        case "options":
            options = [
                Option(text=f"{letter}{text}", tokens=[5 + n, n], continuation=f" {letter}{text}")
                for n, letter in _LETTERS
            ]
            gold = index % 4
            return Item(**common, gold=options[gold].text, options=options, gold_option=gold)
        case "likelihood":
            return Item(
                **common,
                gold="",
                options=[Option(text=context, tokens=[2, 3], continuation=context)],
            )
        case "generation":
            return Item(**common, gold=f"{index}", until=["\n\n", "Q:"], max_new_tokens=32)
        case "retrieval":
            return Item(**common, gold=f"doc{index}")


_LETTERS = [*enumerate("ABCD")]


def _answer(kind: Kind, rng: random.Random, index: int, lane: int) -> Answer:
    right = index % 4 != 3 if lane == 0 else (index + lane) % 3 != 0
    text = f"{'yes' if right else 'no'} {HOSTILE[(index + lane) % len(HOSTILE)]}"
    match kind:
        case "options":
            logprobs: list[float | None] = [-rng.expovariate(0.1) for _ in range(4)]
            gold = index % 4
            best = gold if right else (gold + 1) % 4
            logprobs[best] = -0.01 * rng.random()
            return Answer(
                scores={"acc,none": float(right), "acc_norm,none": float(rng.random() < 0.5)},
                option=best,
                logprobs=logprobs,
                greedy=[number == best for number in range(4)],
            )
        case "likelihood":
            logprob = -100 * rng.random()
            return Answer(
                scores={"perplexity,none": [logprob, 7]}, logprobs=[logprob], greedy=[False]
            )
        case "generation":
            return Answer(
                scores={"exact_match,strict-match": float(right)},
                text=text,
                # At index 3 the baseline repeats itself too.
                tokens=[7, 8, 9] * (9 if index % 2 and (lane or index == 3) else 1),
                filtered={"strict-match": "yes" if right else "[invalid]"},
                divergence=index % 3 if lane else None,
                kl=rng.random() if lane else None,
            )
        case "retrieval":
            matches = [
                Match(id=f"doc{(index + n) % 12}", similarity=1 - n / 20, relevance=int(n == 0))
                for n in range(10)
            ]
            return Answer(
                scores={"ndcg_at_10,none": rng.random()},
                matches=matches,
                cosine=rng.random() if lane else None,
            )


def make_end(kind: Kind, variants: int = 2) -> End:
    number = {"perplexity,none": 12.5} if kind == "likelihood" else {}
    return End(
        task=kind,
        scores=[
            {key: value + lane for key, value in number.items()} for lane in range(variants + 1)
        ],
    )


def make_lines(variants: int = 2, items: int = 6, kinds: list[Kind] = KINDS) -> list[Line]:
    """Lines of the whole evaluation of `make_header`, after the header."""
    lines: list[Line] = []
    for kind in kinds:
        lines += [make_item(kind, index, variants) for index in range(items)]
        lines.append(make_end(kind, variants))
    return lines


def make_results(variants: int = 2, items: int = 6, kinds: list[Kind] = KINDS) -> Results:
    """A made-up evaluation that is complete."""
    results = Results(make_header(variants, items, kinds))
    for line in make_lines(variants, items, kinds):
        if isinstance(line, End):
            results.ends[line.task] = line
        else:
            results.items.setdefault(line.task, []).append(line)
    return results


def write_results(folder: Path, variants: int = 2, items: int = 6) -> Path:
    """Write the evaluation of `make_results` to a new file."""
    path = folder / f"made{SUFFIX}"
    writer = ResultsWriter(path, make_header(variants, items))
    writer.write(make_lines(variants, items))
    writer.close()
    return path
