"""Tasks that need no network: additions, and MMLU's development questions of lm-eval's package."""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml
from datasets import Dataset
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from ...errors import UserError
from ...foreign import foreign_code
from .definitions import Definition
from .sealed import sealed

ADDITIONS = 60
"""Sums that are asked."""

SHOWN = 8
"""Sums before each question, with their results."""

MMLU_EXAMPLES = 2
"""Questions of the same subject before each question of MMLU, with their answers."""

_ACCURACY = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]

_QUESTION = re.compile(r"(.*?)\s*\(A\)(.*?)\(B\)(.*?)\(C\)(.*?)\(D\)(.*)", re.DOTALL)
_ANSWER = re.compile(r"[Tt]he answer is \(([A-D])\)")


def open_demo(name: str) -> Definition:
    """A task of the demo. Raises `UserError` where lm-eval's package lacks the questions."""
    with foreign_code(f"the demo's task {name} cannot be made"), sealed():
        return Definition(ConfigurableTask(config={"task": name, **DEMO[name]()}), None)


def _additions(**_: Any) -> dict[str, Dataset]:
    """Sums of two numbers from 1 to 20, with the right result among four near ones."""
    generator = random.Random(0)
    rows: list[dict[str, Any]] = []
    for _number in range(ADDITIONS + SHOWN):
        a, b = generator.randint(1, 20), generator.randint(1, 20)
        near = [a + b + difference for difference in (-10, -3, -2, -1, 1, 2, 3, 10)]
        options = [a + b, *generator.sample([number for number in near if number > 0], 3)]
        generator.shuffle(options)
        texts = [*map(str, options)]
        rows.append({"a": a, "b": b, "options": texts, "answer": options.index(a + b)})
    return {
        "examples": Dataset.from_list(rows[:SHOWN]),
        "test": Dataset.from_list(rows[SHOWN:]),
    }


def _additions_config() -> dict[str, Any]:
    return {
        "custom_dataset": _additions,
        "test_split": "test",
        "fewshot_split": "examples",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": SHOWN,
        "fewshot_delimiter": "\n",
        # Dollars, as a space before the result would be a token of its own: all options would
        # begin with it, and the drift be measured where nothing is decided.
        "doc_to_text": "${{a}} + ${{b}} = $",
        "target_delimiter": "",
        "metadata": {"version": 1},
    }


def _with_options() -> dict[str, Any]:
    return _additions_config() | {
        "output_type": "multiple_choice",
        "doc_to_choice": "options",
        "doc_to_target": "answer",
        "metric_list": _ACCURACY,
    }


def _generated() -> dict[str, Any]:
    return _additions_config() | {
        "output_type": "generate_until",
        "doc_to_target": "{{a + b}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
        "filter_list": [
            {
                "name": "number",
                "filter": [
                    {"function": "regex", "regex_pattern": r"(\d+)"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _mmlu_questions() -> Iterator[dict[str, Any]]:
    """Questions with the number of the right option, in the order of subjects' names.

    They are the examples of lm-eval's chain-of-thought prompts, whose last words name the answer.
    """
    folder = Path(lm_eval.tasks.__file__).parent / "mmlu" / "flan_cot_fewshot"
    for file in sorted(folder.glob("mmlu_*.yaml")):
        config = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)
        for sample in config["fewshot_config"]["samples"]:
            question = _QUESTION.fullmatch(sample["question"])
            answers = _ANSWER.findall(sample["target"])
            if question and answers:
                text, *choices = (" ".join(part.split()) for part in question.groups())
                yield {
                    "subject": config["dataset_name"].replace("_", " "),
                    "question": text,
                    "choices": choices,
                    "answer": "ABCD".index(answers[-1]),
                }


def _mmlu(**_: Any) -> dict[str, Dataset]:
    """The shortest question of each subject, with the others of the subject as examples."""
    by_subject: dict[str, list[dict[str, Any]]] = {}
    for question in _mmlu_questions():
        by_subject.setdefault(question["subject"], []).append(question)
    if not by_subject:
        raise UserError("the installed lm-eval has no questions in mmlu/flan_cot_fewshot")
    rows: list[dict[str, Any]] = []
    for questions in by_subject.values():
        asked, *examples = sorted(questions, key=lambda question: len(str(question)))
        rows.append(asked | {"examples": examples})
    return {"test": Dataset.from_list(rows)}


class _SameSubject(ContextSampler):
    """Sampler of the examples that stand with a question."""

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **_: Any) -> list[Any]:
        assert df is None
        examples = eval_doc["examples"]
        if n > len(examples):
            raise UserError(
                f"there are {len(examples)} other questions on {eval_doc['subject']}; lower "
                "--num-fewshot"
            )
        return examples[:n]


def _mmlu_dev() -> dict[str, Any]:
    return {
        "custom_dataset": _mmlu,
        "test_split": "test",
        # The sampler is given the question where both are the same.
        "fewshot_split": "test",
        "fewshot_config": {"sampler": _SameSubject},
        "num_fewshot": MMLU_EXAMPLES,
        "description": "The following are multiple choice questions (with answers) about "
        "{{subject}}.\n\n",
        "doc_to_text": "{{question}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
        "D. {{choices[3]}}\nAnswer:",
        "metadata": {"version": 1},
        "output_type": "multiple_choice",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
        "metric_list": _ACCURACY,
    }


DEMO: dict[str, Callable[[], dict[str, Any]]] = {
    "additions": _with_options,
    "additions_gen": _generated,
    "mmlu_dev": _mmlu_dev,
}
