"""lm-eval's files of an evaluation against those that lm-eval itself writes of the same model."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prunetui.engine.evaluation.evaluator import evaluate
from prunetui.engine.options import Options
from prunetui.engine.results.export.lm_eval_files import lm_eval_files
from prunetui.engine.results.file import read_results
from prunetui.engine.results.records import SUFFIX, Settings

from ..support.models import save_model_directory

OPTIONS: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_choice": "options",
    "doc_to_target": "answer",
    "metric_list": [{"metric": name} for name in ("acc", "acc_norm")],
}
TASKS: dict[str, dict[str, Any]] = {
    "few_shots": OPTIONS | {"num_fewshot": 2, "fewshot_split": "test"},
    "contexts": OPTIONS | {"doc_to_text": "answer", "doc_to_target": "{{' ' + text}}"},
    "word": {
        "output_type": "loglikelihood",
        "doc_to_target": "text",
        "metric_list": [{"metric": "perplexity", "aggregation": "perplexity"}, {"metric": "acc"}],
    },
    "windows": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{q}} {{text}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
    "writing": {
        "output_type": "generate_until",
        "doc_to_target": "text",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
        "filter_list": [
            {
                "name": name,
                "filter": [
                    {"function": "regex", "regex_pattern": f"({pattern})"},
                    {"function": "take_first"},
                ],
            }
            for name, pattern in (("strict", "x"), ("any", "."))
        ],
    },
}
ROWS = [
    {"q": "two and two", "options": ["four", "five", "a dozen"], "answer": 0, "text": "4"},
    {"q": "the sky", "options": ["red", "blue", "blue too"], "answer": 1, "text": "blue"},
    {"q": "Grüße, 日本", "options": ["ja", "nein", "日"], "answer": 2, "text": "ok"},
]


def write_task(folder: Path, name: str, config: dict[str, Any]) -> str:
    data = folder / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    whole = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "{{q}}",
        "metadata": {"version": 1.0},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(whole | config))
    return str(path)


def stock_files(model: Path, names: list[str], output: Path) -> dict[str, str]:
    """Files as lm-eval's command line writes them, by the part of their name before the date."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(output))
    lm: Any = HFLM
    run: Any = lm_eval.simple_evaluate
    results = run(
        model=lm(pretrained=str(model), device="cpu", dtype="float32", batch_size=1),
        tasks=names,
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=1000,
        evaluation_tracker=tracker,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return {file.name.rpartition("_")[0]: file.read_text() for file in output.rglob("*.json*")}


def assert_close(ours: Any, stock: Any, where: str) -> None:
    """Equal in structure, and numbers, also those written as text, to within 1e-3."""
    if isinstance(stock, dict):
        assert isinstance(ours, dict), where
        assert [*ours] == [*stock], where
        for key, value in stock.items():
            assert_close(ours[key], value, f"{where}.{key}")
    elif isinstance(stock, list):
        assert isinstance(ours, list), where
        assert len(ours) == len(stock), where
        for number, (one, other) in enumerate(zip(ours, stock, strict=True)):
            assert_close(one, other, f"{where}[{number}]")
    elif where.endswith(("doc_hash", "prompt_hash", "target_hash", "target")):
        assert ours == stock, where
    else:
        try:
            number = float(stock)
        except (TypeError, ValueError):
            assert ours == stock, where
        else:
            assert float(ours) == pytest.approx(number, abs=1e-3, rel=1e-5), where


@pytest.mark.slow
def test_files_are_as_lm_eval_writes_them(tmp_path: Path) -> None:
    model = save_model_directory(tmp_path / "model")
    names = [write_task(tmp_path, name, config) for name, config in TASKS.items()]
    stock = stock_files(model, names, tmp_path / "stock")
    path = tmp_path / f"a{SUFFIX}"
    options = Options(model=str(model), variants=("control",), dtype="float32")
    settings = Settings(tasks=tuple(names), batch_size=1)
    evaluate(options, settings, path, lambda *_: None, lambda *_: None, resume=False)
    ours = {
        name.partition("/")[2].rpartition("_")[0]: content
        for name, content in lm_eval_files(read_results(path))
        if name.startswith("0-")
    }
    assert {*ours} == {*stock} == {"results", *(f"samples_{name}" for name in TASKS)}

    for name in TASKS:
        own, other = (
            [json.loads(line) for line in files[f"samples_{name}"].splitlines()]
            for files in (ours, stock)
        )
        assert_close(own, other, name)

    own, other = json.loads(ours["results"]), json.loads(stock["results"])
    for key in ("versions", "n-shot", "n-samples", "group_subtasks", "task_hashes"):
        assert own[key] == other[key]
    for name, entry in other["results"].items():
        # Only means have a standard error without a bootstrap.
        expected = {
            key: "N/A" if "perplexity_stderr" in key else value for key, value in entry.items()
        }
        assert_close({key: own["results"][name][key] for key in expected}, expected, name)
        assert {*own["results"][name]} == {*expected}
    for name, better in other["higher_is_better"].items():
        assert own["higher_is_better"][name] == better
    missing = other.keys() - own.keys() - {"git_hash", "pretty_env_info", "upper_git_hash"}
    assert {key for key in missing if not key.startswith("tokenizer_")} <= {
        "eot_token_id",
        "max_length",
        "system_instruction_sha",
        "chat_template",
        "chat_template_sha",
        "total_evaluation_time_seconds",
    }
    check_readers(ours, tmp_path / "again")


def check_readers(files: dict[str, str], folder: Path) -> None:
    """Read the files with what others read them with."""
    from datasets import load_dataset
    from lm_eval.utils import make_table

    results = json.loads(files["results"])
    table = make_table(results)
    for name, entry in results["results"].items():
        assert name in table
        assert f"{next(value for key, value in entry.items() if ',' in key):.4f}" in table
    folder.mkdir()
    for name in TASKS:
        path = folder / f"{name}.jsonl"
        path.write_text(files[f"samples_{name}"])
        rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder))
        assert len(rows) == len(path.read_text().splitlines())
