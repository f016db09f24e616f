"""lm-eval's tasks in all lanes against lm-eval's own runs of checkpoints that `prune` wrote."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prunetui.engine.results.records import Item
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from ..support.harness import (
    Evaluated,
    open_evaluated,
    stock_results,
    write_tasks,
)
from ..support.models import (
    make_model,
    make_spm_tokenizer,
    make_tokenizer,
    save_model_directory,
)

TOLERANCE = 1e-3

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if not loop.last %}|{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def add_beginning(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Let a tokenizer set its end token before every text, as its beginning."""
    tokenizer.bos_token = tokenizer.eos_token
    backend: Any = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", tokenizer.eos_token_id)]
    )
    return tokenizer


def assert_equal(ours: Any, stock: Any) -> None:
    """Equal in structure, and numbers to within the tolerance."""
    if isinstance(ours, list) and not isinstance(stock, str):
        for one, other in zip(ours, [*stock], strict=True):
            assert_equal(one, other)
    elif isinstance(ours, float) or isinstance(stock, float):
        assert ours == pytest.approx(stock, abs=TOLERANCE)
    else:
        assert ours == stock


def compare(
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


def test_every_kind_of_task_is_as_with_a_stock_model(tmp_path: Path) -> None:
    directory = save_model_directory(tmp_path / "model")
    add_beginning(make_tokenizer()).save_pretrained(directory)
    names = write_tasks(tmp_path)
    evaluated = open_evaluated(directory, ["control", "magnitude:0.5+drop:mlp=[1]"], names)

    answered = compare(evaluated, names, tmp_path, lanes=[2])

    for items in answered:
        for item in items:
            baseline, control, _ = item.answers
            assert msgspec.structs.replace(control, kl=None) == baseline
            for drift in item.drift[:1]:
                assert drift is not None
                assert drift.kl == 0
    *_, word, _, writing = (items[4] for items in answered)
    # 600 and 602 tokens, of which 4 and 12 need room in a context of 256; the last is not read.
    assert (word.truncated, len(word.tokens)) == (347, 253)
    assert (writing.truncated, len(writing.tokens)) == (358, 244)
    contexts = answered[1][0]
    assert [option.context for option in contexts.options] == [0, 1, 2]
    assert len(contexts.contexts) == 3
    assert [len(item.options) for item in answered[2]] == [2] * 5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "mixtral"])
@pytest.mark.parametrize(
    ("tokenizer", "settings"),
    [
        ("plain", {"num_fewshot": 1, "limit": 3}),
        ("beginning", {"apply_chat_template": True}),
        ("space", {}),
    ],
)
def test_families_and_tokenizers(
    family: str, tokenizer: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    made = {
        "plain": lambda: make_tokenizer(CHAT),
        "beginning": lambda: add_beginning(make_tokenizer(CHAT)),
        "space": lambda: make_spm_tokenizer(CHAT),
    }[tokenizer]()
    directory = tmp_path / "model"
    make_model(family, vocab_size=len(made)).save_pretrained(directory)
    made.save_pretrained(directory)
    names = write_tasks(tmp_path)
    variants = ["control", "drop:attn=[2]", "magnitude:0.5+drop:mlp=[1]"]
    compare(open_evaluated(directory, variants, names, **settings), names, tmp_path)
