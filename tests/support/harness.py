"""Tasks of lm-eval over local files, asked of lanes and of stock models."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from prunetui.engine.evaluation.generator import LaneGenerator
from prunetui.engine.evaluation.harness.opening import open_harness_tasks
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.reader import LaneReader
from prunetui.engine.evaluation.task import EvaluationTask
from prunetui.engine.options import Options
from prunetui.engine.results.records import Item, Settings
from prunetui.engine.variants.builder import open_builder
from prunetui.engine.variants.export import save_checkpoint
from prunetui.engine.variants.recipes import parse
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

ROWS = [
    {"q": "two and two", "options": ["four", "five", "a dozen"], "answer": 0, "text": "4"},
    {"q": "the sky ", "options": ["red", "blue", "blue too"], "answer": 1, "text": "blue"},
    {"q": "Grüße, 日本", "options": ["ja", "nein", "日"], "answer": 2, "text": "ok"},
    {"q": "", "options": ["empty", "full", "half"], "answer": 0, "text": "e"},
    {"q": "long " * 120, "options": ["b", "a", "c c c"], "answer": 1, "text": "y y"},
]
"""Documents with options of several tokens, a trailing space, an empty question, and a text that is
longer than a tiny model's context of 256 tokens."""

EXAMPLES = [
    {"q": f"number {n}", "options": ["a", "b", "c"], "answer": n % 3, "text": f"{n}"}
    for n in range(6)
]


def write_task(
    folder: Path, name: str, rows: Sequence[dict[str, Any]] = ROWS, /, **config: Any
) -> str:
    """A YAML file of a task with its documents beside it."""
    for split, documents in (("test", rows), ("train", EXAMPLES)):
        lines = [json.dumps(document) for document in documents]
        (folder / f"{name}-{split}.jsonl").write_text("\n".join(lines))
    files = {split: str(folder / f"{name}-{split}.jsonl") for split in ("test", "train")}
    settings = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "fewshot_split": "train",
        "num_fewshot": 0,
        "doc_to_text": "{{q}}",
        "metadata": {"version": 1},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings | config))
    return str(path)


OPTIONS: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_choice": "options",
    "doc_to_target": "answer",
    "metric_list": [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in ("acc", "acc_norm")
    ],
}
GENERATION: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{q}}:",
    "doc_to_target": "text",
    "generation_kwargs": {"until": ["q", "\n"], "max_gen_toks": 12, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def write_tasks(folder: Path) -> list[str]:
    """Tasks of every kind: options after random examples, in several contexts, with metrics that
    are no means and unconditional log probabilities; one text, windows of a long one; writing."""
    means = ("acc", "acc_mutual_info")
    return [
        write_task(folder, "examples", **OPTIONS | {"num_fewshot": 2}),
        write_task(
            folder,
            "contexts",
            **OPTIONS | {"doc_to_text": "answer", "doc_to_target": "{{' ' + text + '.'}}"},
            target_delimiter="",
        ),
        write_task(
            folder,
            "information",
            **OPTIONS
            | {
                "metric_list": [{"metric": "f1", "aggregation": "f1", "higher_is_better": True}]
                + [{"metric": n, "aggregation": "mean", "higher_is_better": True} for n in means],
                "doc_to_choice": ["no", "yes"],
                "doc_to_target": "{{answer % 2}}",
            },
        ),
        write_task(
            folder,
            "word",
            output_type="loglikelihood",
            doc_to_target="text",
            metric_list=[
                {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
                {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            ],
        ),
        write_task(
            folder,
            "windows",
            output_type="loglikelihood_rolling",
            doc_to_text="",
            doc_to_target="{{q}} {{text}}",
            metric_list=[{"metric": name} for name in ("word_perplexity", "bits_per_byte")],
        ),
        write_task(folder, "writing", **GENERATION),
    ]


# Decorators hide their types.
_Stock: Any = HFLM
_evaluate: Any = lm_eval.simple_evaluate


@dataclass
class Evaluated:
    """Lanes of a model directory, and the tasks that are asked of them."""

    directory: Path
    lanes: EvaluatedLanes
    tasks: list[EvaluationTask]

    def items(self) -> list[list[Item]]:
        """Items by task, answered chunk by chunk."""
        answered: list[list[Item]] = []
        for task in self.tasks:
            bounds = range(0, task.record.items, task.chunk)
            answered.append(
                [
                    item
                    for first in bounds
                    for item in task.answer(
                        first, min(first + task.chunk, task.record.items), lambda _: None
                    )
                ]
            )
        return answered


def open_evaluated(
    directory: Path, variants: Sequence[str], names: Sequence[str], **settings: Any
) -> Evaluated:
    options = Options(model=str(directory), prompt="ab", dtype="float32")
    builder = open_builder(options, lambda *_: None)
    models, _ = builder.build_lanes([parse(variant) for variant in variants])
    lanes = EvaluatedLanes(
        builder.loaded, models, options, Settings(batch_size=3, **settings), lambda *_: None
    )
    tasks = open_harness_tasks(names, lanes, LaneReader(lanes), LaneGenerator(lanes))
    return Evaluated(directory, lanes, tasks)


def stock_results(
    evaluated: Evaluated, lane: int, names: Sequence[str], folder: Path
) -> dict[str, Any]:
    """lm-eval's own results, of the lane as `prune` writes it, one text at a time."""
    checkpoint = folder / f"lane{lane}"
    save_checkpoint(evaluated.lanes.models[lane], evaluated.directory, checkpoint)
    model = _Stock(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1)
    settings = evaluated.lanes.settings
    with torch.no_grad():
        return _evaluate(
            model=model,
            tasks=[*names],
            task_manager=TaskManager(include_defaults=False),
            num_fewshot=settings.num_fewshot,
            limit=settings.limit,
            bootstrap_iters=0,
            apply_chat_template=settings.apply_chat_template,
            fewshot_as_multiturn=settings.apply_chat_template,
            fewshot_random_seed=settings.seed,
        )


TOLERANCE = 1e-3


def assert_equal(ours: Any, stock: Any) -> None:
    """Equal in structure, and numbers to within the tolerance."""
    if isinstance(ours, list) and not isinstance(stock, str):
        for one, other in zip(ours, [*stock], strict=True):
            assert_equal(one, other)
    elif isinstance(ours, float) or isinstance(stock, float):
        assert ours == pytest.approx(stock, abs=TOLERANCE)
    else:
        assert ours == stock


def compare_with_stock(
    evaluated: Evaluated, names: Sequence[str], folder: Path, lanes: Sequence[int] | None = None
) -> list[list[Item]]:
    """Compare every response, score and mean of lanes, of all if none are named, with lm-eval's."""
    answered = evaluated.items()
    for lane in lanes or range(len(evaluated.lanes.models)):
        stock = stock_results(evaluated, lane, names, folder)
        for task, items in zip(evaluated.tasks, answered, strict=True):
            record = task.record
            samples = stock["samples"][record.name]
            assert record.total == stock["n-samples"][record.name]["original"]
            assert record.num_fewshot == stock["n-shot"][record.name]
            assert str(stock["versions"][record.name]) == record.version
            for sample in samples:
                item = items[sample["doc_id"]]
                answer = item.answers[lane]
                assert item.hash == sample["doc_hash"]
                if sample["filter"] == record.metrics[0].filter:
                    check_response(record.kind, item, lane, sample)
                for name in sample["metrics"]:
                    assert_equal(answer.scores[f"{name},{sample['filter']}"], sample[name])
            assert len({sample["doc_id"] for sample in samples}) == len(items) == record.items
            end = task.end(items)
            for metric in record.metrics:
                value = stock["results"][record.name][metric.key]
                scores = [item.answers[lane].scores[metric.key] for item in items]
                ours = (
                    math.fsum(scores) / len(scores) if metric.mean else end.scores[lane][metric.key]
                )
                # Perplexities are large.
                assert ours == pytest.approx(value, rel=1e-5, abs=TOLERANCE)
    return answered


def check_response(kind: str, item: Item, lane: int, sample: dict[str, Any]) -> None:
    answer = item.answers[lane]
    (responses,) = zip(*sample["resps"], strict=True)
    if kind == "generation":
        assert [answer.text] == [*responses]
        assert item.contexts == [sample["arguments"][0][0]]
    elif isinstance(responses[0], float):
        assert answer.logprobs == pytest.approx([*responses], abs=TOLERANCE)
    else:
        count = len(item.options)
        assert answer.logprobs == pytest.approx([r[0] for r in responses[:count]], abs=TOLERANCE)
        assert answer.greedy == [r[1] for r in responses[:count]]
        arguments = [*sample["arguments"]][:count]
        assert [item.contexts[o.context] for o in item.options] == [a[0] for a in arguments]


def add_beginning(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Let a tokenizer set its end token before every text, as its beginning."""
    tokenizer.bos_token = tokenizer.eos_token
    backend: Any = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", tokenizer.eos_token_id)]
    )
    return tokenizer
