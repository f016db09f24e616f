"""Results and samples files as lm-eval's `EvaluationTracker` writes them, a directory per lane.

Keys and forms are those of lm-eval 0.4.13: `results_DATE.json` has what `simple_evaluate` returns,
and `samples_TASK_DATE.jsonl` a line per item and filter. Retrieval and prompts, which are not
lm-eval's, are left out, and so are the unconditional requests of `acc_mutual_info`.
"""

import contextlib
import datetime
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from ...errors import UserError
from ..comparison import TaskComparison, compare
from ..records import Answer, Header, Item, Task
from ..results import Results

NOT_AVAILABLE = "N/A"
"""lm-eval's text for a standard error that it does not have."""


def lm_eval_files(results: Results) -> Iterator[tuple[str, str]]:
    """Paths in a directory and contents of the files, one after another.

    Raises `UserError` if no task is lm-eval's.
    """
    header = results.header
    tasks = {task.name: task for task in header.tasks if task.metrics and task.kind != "retrieval"}
    if not tasks:
        raise UserError("lm-eval's files are of its own tasks, and this evaluation has none")
    comparisons = [
        comparison
        for comparison in compare(results)
        if all(task.name in tasks for task in comparison.tasks)
    ]
    # Without the time zone, as lm-eval's own.
    date = _file_name(header.created[:19].replace(":", "-")).replace("_", "-")
    for lane, described in enumerate(header.lanes):
        # Numbers keep names apart that become the same file name.
        directory = f"{lane}-{_file_name(described.name)}"
        hashes: dict[str, str] = {}
        names: set[str] = set()
        for number, task in enumerate(tasks.values()):
            samples = [*_samples(task, results.items.get(task.name, []), lane)]
            joined = [s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples]
            hashes[task.name] = _hash("".join(joined))
            name = _file_name(task.name)
            name = f"{name}-{number}" if name in names else name
            names.add(name)
            content = "".join(_json(sample) + "\n" for sample in samples)
            yield f"{directory}/samples_{name}_{date}.jsonl", content
        content = _results(header, comparisons, lane)
        content |= {"task_hashes": hashes, "model_name_sanitized": directory}
        yield f"{directory}/results_{date}.json", _json(content, indent=2)


def _results(header: Header, comparisons: list[TaskComparison], lane: int) -> dict[str, Any]:
    """What lm-eval's `simple_evaluate` returns, as far as it says something of this run."""
    tasks = [comparison.tasks[0] for comparison in comparisons if not comparison.group]
    groups = [comparison for comparison in comparisons if comparison.group]
    scores = {comparison.name: _scores(comparison, lane) for comparison in comparisons}
    better = {task.name: {m.name: m.higher_is_better for m in task.metrics} for task in tasks}
    better |= {group.name: {m.name: m.higher_is_better for m in group.metrics} for group in groups}
    shots = {each.name: {task.num_fewshot for task in each.tasks} for each in comparisons}
    lengths = {each.name: each for each in comparisons if not each.group}
    described = header.lanes[lane]
    name = f"{header.model.name} {described.name}"
    return {
        "results": scores,
        **({"groups": {group.name: scores[group.name] for group in groups}} if groups else {}),
        "group_subtasks": {group.name: [task.name for task in group.tasks] for group in groups},
        "configs": {task.name: task.config for task in tasks},
        "versions": {task.name: _version(task) for task in tasks},
        "n-shot": {name: number.pop() for name, number in shots.items() if len(number) == 1},
        "higher_is_better": better,
        "n-samples": {
            name: {"original": each.total, "effective": each.items}
            for name, each in lengths.items()
        },
        "config": _config(header, lane),
        "date": _timestamp(header.created),
        "transformers_version": header.versions.get("transformers"),
        "lm_eval_version": header.versions.get("lm-eval"),
        "model_source": "prunetui",
        "model_name": name,
        "system_instruction": None,
        "fewshot_as_multiturn": None,
        "prunetui": {
            "lane": msgspec.to_builtins(described),
            "settings": msgspec.to_builtins(header.settings),
            "noise_floor": header.noise_floor,
            "versions": header.versions,
            "notes": header.notes,
        },
    }


def _scores(comparison: TaskComparison, lane: int) -> dict[str, Any]:
    """Entry of a task or group in lm-eval's `results`."""
    alias_key = "group_alias" if comparison.group else "task_alias"
    entry: dict[str, Any] = {
        "name": comparison.name,
        "alias": comparison.tasks[0].config.get(alias_key) or comparison.name,
        "sample_len": comparison.items,
    }
    for score in comparison.cells[lane].scores:
        if score.value is not None:
            metric = score.metric
            entry[metric.key] = score.value
            stderr = NOT_AVAILABLE if score.stderr is None else score.stderr
            entry[f"{metric.name}_stderr,{metric.filter}"] = stderr
    return entry


def _config(header: Header, lane: int) -> dict[str, Any]:
    model, settings, described = header.model, header.settings, header.lanes[lane]
    return {
        "model": "hf",
        "model_args": {
            "pretrained": model.name,
            "dtype": model.dtype,
            "recipe": described.recipe,
            "dropped_attention": described.dropped_attention,
            "dropped_mlp": described.dropped_mlp,
        },
        "model_num_parameters": model.parameters,
        "model_dtype": f"torch.{model.dtype}",
        "model_revision": "",
        "model_sha": "",
        "batch_size": settings.batch_size,
        "batch_sizes": [],
        "device": model.device,
        "use_cache": None,
        "limit": settings.limit,
        "bootstrap_iters": 0,
        "gen_kwargs": None,
        "fewshot_seed": settings.seed,
    }


def _version(task: Task) -> Any:
    metadata = task.config.get("metadata")
    version = metadata.get("version") if isinstance(metadata, dict) else None
    return task.version if version is None else version


def _samples(task: Task, items: list[Item], lane: int) -> Iterator[dict[str, Any]]:
    """Samples of a lane, filter by filter as lm-eval writes them."""
    for name in dict.fromkeys(metric.filter for metric in task.metrics):
        for item in items:
            answer = item.answers[lane]
            arguments, responses = _requests(task, item, answer)
            filtered = [answer.filtered.get(name, "")] if task.kind == "generation" else responses
            values = {
                key.removesuffix(f",{name}"): value
                for key, value in answer.scores.items()
                if key.endswith(f",{name}")
            }
            repeats = task.config.get("repeats")
            times = repeats if isinstance(repeats, int) and 0 < repeats < 100 else 1
            yield {
                "doc_id": item.index,
                "doc": item.doc,
                "target": item.target,
                "arguments": {
                    f"gen_args_{number}": {f"arg_{n}": each for n, each in enumerate(one)}
                    for number, one in enumerate(arguments)
                },
                "resps": [[response] * times for response in responses],
                "filtered_resps": filtered,
                "filter": name,
                "metrics": [*values],
                "doc_hash": item.hash,
                "prompt_hash": _hash(str(arguments[0][0]) if arguments else ""),
                "target_hash": _hash(item.target),
                **values,
            }


def _requests(task: Task, item: Item, answer: Answer) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """Arguments and responses of an item's requests, numbers as text."""
    if task.kind == "generation":
        settings = task.config.get("generation_kwargs") or {
            "until": item.until,
            "max_gen_toks": item.max_new_tokens,
        }
        return [(context, settings) for context in item.contexts], [answer.text]
    logprobs = ["nan" if logprob is None else str(logprob) for logprob in answer.logprobs]
    if task.config.get("output_type") == "loglikelihood_rolling":
        return [(option.continuation,) for option in item.options], logprobs
    arguments = [(item.contexts[option.context], option.continuation) for option in item.options]
    return arguments, [
        [logprob, str(greedy)] for logprob, greedy in zip(logprobs, answer.greedy, strict=False)
    ]


def _file_name(text: str) -> str:
    """Part of a file name that every system takes."""
    return re.sub(r"[^A-Za-z0-9._,=+-]+", "__", text)[:100]


def _timestamp(created: str) -> float | None:
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.datetime.fromisoformat(created).timestamp()
    return None


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _json(content: Any, indent: int | None = None) -> str:
    return json.dumps(content, ensure_ascii=False, indent=indent)
