"""lm-eval's tasks in all lanes: against its own run, what is refused, and the demo's tasks."""

import dataclasses
import math
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.evaluation.harness import opening
from prunetui.engine.evaluation.harness import tasks as harness_tasks
from prunetui.engine.evaluation.harness.definitions import Definition, open_definitions
from prunetui.engine.evaluation.harness.opening import DEMO_TASKS, open_harness_tasks
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.requests import (
    Continuation,
    Continuations,
    Prompt,
    Rating,
    Request,
)
from prunetui.engine.evaluation.task import EvaluationTask
from prunetui.engine.results.records import Settings

from ..support.harness import (
    GENERATION,
    OPTIONS,
    ROWS,
    add_beginning,
    compare_with_stock,
    open_evaluated,
    write_task,
    write_tasks,
)
from ..support.models import make_tokenizer, save_model_directory


class Unread:
    """Lanes whose every text has the same log probability, and that write nothing."""

    def rate(self, requests: Sequence[Request], report: object) -> list[Rating]:  # noqa: ARG002
        return [Rating([-1.0], [False], []) for _request in requests]

    def generate(self, prompts: Sequence[Prompt], report: object) -> list[Continuations]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedLanes:
    """The baseline alone, of a model without a chat template."""
    directory = save_model_directory(tmp_path_factory.mktemp("model") / "model")
    return open_evaluated(directory, [], []).lanes


def open_in(lanes: EvaluatedLanes, *names: str, **settings: Any) -> list[EvaluationTask]:
    changed = dataclasses.replace(lanes, settings=Settings(**settings))
    return open_harness_tasks(names, changed, Unread(), Unread())


def answer_all(task: EvaluationTask) -> list[Any]:
    return task.answer(0, task.record.items, lambda _: None)


def test_every_kind_of_task_is_as_with_a_stock_model(tmp_path: Path) -> None:
    directory = save_model_directory(tmp_path / "model")
    add_beginning(make_tokenizer()).save_pretrained(directory)
    names = write_tasks(tmp_path)
    evaluated = open_evaluated(directory, ["control", "magnitude:0.5+drop:mlp=[1]"], names)

    answered = compare_with_stock(evaluated, names, tmp_path, lanes=[2])

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


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("boolk", "lm-eval has no task, group or tag named boolk; near it are boolq"),
        (
            "boolq",
            "task boolq cannot be opened: its data set is on the Hugging Face hub (.*); a YAML",
        ),
        ("humaneval", "task humaneval runs code that the model writes, which prunetui never does"),
        ("mbpp", "task mbpp runs code that the model writes, which prunetui never does"),
        ("squadv2", "task squadv2 is a Python class of its own"),
        ("careqa_open", "the metric bleu is code from the Hugging Face hub"),
        ("chartqa", "task chartqa asks about images or sound"),
        ("nothing.yaml", "cannot read nothing.yaml: No such file or directory"),
    ],
)
def test_names_that_cannot_be_asked(name: str, sentence: str, lanes: EvaluatedLanes) -> None:
    with pytest.raises(UserError, match=sentence):
        open_in(lanes, name)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("task: x\n  bad: 1", "is no YAML: line 2, column 6: mapping values are not allowed here"),
        ("task: x\ndoc_to_text: !function utils.f", "has the Python function utils.f run"),
        ("task: !!python/name:os.system", "is no YAML: line 1, column 7: could not determine"),
        ("include: deep.yaml", "has the Python function utils.f run"),
        ("task: x\ndataset_kwargs: {trust_remote_code: true}", "has code of the data set run"),
        ("- 1", "is no task: it has no `key: value` lines"),
        ("a: 1", "defines neither a task nor a group"),
        ("task: x\ninclude: x.yaml", "includes itself"),
        ("task: x\ninclude: none.yaml", "cannot read .*none.yaml: No such file"),
        ("group: g\ntask: [boolq, humaneval]", "task humaneval runs code"),
        ("group: g\ntask: [{group: h, task: [boolk]}]", "no task, group or tag named boolk"),
        ("task: x\ndataset_path: json\ndataset_kwargs: {data_files: no.json}", "cannot be opened"),
    ],
)
def test_files_that_cannot_be_asked(
    text: str, sentence: str, lanes: EvaluatedLanes, tmp_path: Path
) -> None:
    (tmp_path / "utils.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(): pass")
    (tmp_path / "deep.yaml").write_text("task: x\ndoc_to_text: !function utils.f")
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        open_in(lanes, str(tmp_path / "x.yaml"))
    assert not (tmp_path / "ran").exists()


ESCAPE = "{{ cycler.__init__.__globals__.os.system('touch ran') }}"
SAMPLED = {"generation_kwargs": {"temperature": 0.7}}
BEAMS = {"generation_kwargs": {"num_beams": 4}}
LONG = {"generation_kwargs": {"until": ["a"]}}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (GENERATION | SAMPLED, "task x draws samples"),
        (GENERATION | BEAMS, "task x generates with num_beams: 4, which prunetui does not have"),
        (GENERATION | LONG, "task x generates up to 256 tokens, and model reads at most 256"),
        (GENERATION | {"doc_to_text": "{{q}}"}, "task x, item 3: the prompt has no tokens"),
        (OPTIONS | {"metric_list": [{"metric": "no"}]}, "task x has the metric no, which lm-eval"),
        (
            OPTIONS | {"metric_list": [{"metric": "acc", "aggregation": "no"}]},
            "task x has an aggregation of acc that lm-eval does not have",
        ),
        (OPTIONS | {"doc_to_text": ESCAPE}, "cannot be opened .access to attribute"),
        (OPTIONS | {"test_split": "dev"}, "its data or its definition has no 'dev'"),
        (OPTIONS | {"num_fewshot": 9}, "the prompts of task x cannot be made .Sample larger"),
        (OPTIONS | {"doc_to_choice": "{{[q, '']}}"}, "its first document has an option without"),
        (
            OPTIONS | {"doc_to_choice": "{{['a', q]}}", "target_delimiter": ""},
            "task x, item 3: the option '' has no tokens",
        ),
        (
            OPTIONS
            | {
                "doc_to_text": "{{text}}:",
                "doc_to_choice": "{{['a', q]}}",
                "target_delimiter": "",
            },
            "task x, item 3: the option '' has no tokens",
        ),
        (OPTIONS | {"doc_to_choice": "{{['a', 300 * 'b']}}"}, "an option has 301 tokens, and the"),
    ],
)
def test_tasks_that_cannot_be_asked(
    config: dict[str, Any],
    sentence: str,
    lanes: EvaluatedLanes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        answer_all(*open_in(lanes, write_task(tmp_path, "x", **config)))
    assert not (tmp_path / "ran").exists()


def test_an_option_that_cannot_be_rated_is_found_before_any_is(
    lanes: EvaluatedLanes, tmp_path: Path
) -> None:
    for choices, sentence in {
        "{{['a', q]}}": "task x, item 3: the option '' has no tokens",
        "{{['a', q * 90]}}": r"task x, item \d: an option has \d+ tokens, and the model reads",
    }.items():
        task = write_task(
            tmp_path, "x", **OPTIONS | {"doc_to_choice": choices, "target_delimiter": ""}
        )
        with pytest.raises(UserError, match=sentence):
            open_in(lanes, task)


def test_a_task_without_documents(lanes: EvaluatedLanes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.yaml cannot be opened: it has no documents"):
        open_in(lanes, write_task(tmp_path, "x", [], **OPTIONS))


def test_a_model_without_an_end_or_a_chat_template(lanes: EvaluatedLanes, tmp_path: Path) -> None:
    writing = write_task(tmp_path, "x", **GENERATION)
    with pytest.raises(UserError, match="has no chat template; leave out --apply-chat-template"):
        open_in(lanes, writing, apply_chat_template=True)
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    loaded = dataclasses.replace(lanes.loaded, tokenizer=tokenizer)
    endless = dataclasses.replace(lanes, loaded=loaded)
    with pytest.raises(UserError, match="has neither a beginning nor an end token"):
        open_in(endless, writing)
    tokenizer.bos_token = "<end>"
    with pytest.raises(UserError, match="has no end token, and task x generates up to it"):
        open_in(endless, writing)


def test_lm_eval_that_is_not_installed(
    lanes: EvaluatedLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"lm-eval is not installed: pip install 'prunetui\[eval\]'"
    ):
        open_in(lanes, "boolq")


def test_a_group_keeps_its_name_and_a_task_named_twice_is_asked_once(
    lanes: EvaluatedLanes, tmp_path: Path
) -> None:
    one = write_task(tmp_path, "one", **OPTIONS)
    group = tmp_path / "group.yaml"
    definition = (tmp_path / "one.yaml").read_text().replace("task: one", "task: two")
    members = "".join(f"\n    {line}" for line in definition.splitlines())
    means = "aggregate_metric_list: [{metric: acc, weight_by_size: false}]"
    group.write_text(f"group: both\n{means}\ntask:\n  -{members}")

    tasks = open_in(lanes, one, str(group), one, limit=2, num_fewshot=1)

    assert [(task.record.name, task.record.group) for task in tasks] == [
        ("one", None),
        ("both::two", "both"),
    ]
    assert [task.record.weight_by_size for task in tasks] == [True, False]
    assert [(t.record.items, t.record.total) for t in tasks] == [(2, 5)] * 2
    # Defined without examples, as in lm-eval.
    assert tasks[0].record.num_fewshot == 0
    assert "--num-fewshot 1" in tasks[0].record.notes[0]
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match="two tasks that are asked are called one"):
        open_in(lanes, one, write_task(other, "one", ROWS[:2], **OPTIONS))


def test_a_task_asked_for_before_its_group_counts_in_its_mean(
    lanes: EvaluatedLanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (definition,) = open_definitions(write_task(tmp_path, "one", **OPTIONS))
    groups = {"one": None, "all": "all", "some": "some"}

    def open_named(name: str) -> list[Definition]:
        return [dataclasses.replace(definition, group=groups[name], weight_by_size=False)]

    monkeypatch.setattr(harness_tasks, "open_definitions", open_named)
    for names in (("one", "all"), ("all", "one")):
        (task,) = open_in(lanes, *names, limit=2)
        assert (task.record.group, task.record.weight_by_size) == ("all", False)
    with pytest.raises(UserError, match="task one counts in the means of all and some"):
        open_in(lanes, "one", "all", "some", limit=2)


def test_log_probabilities_that_are_no_numbers_have_no_score(
    lanes: EvaluatedLanes, tmp_path: Path
) -> None:
    class PartlyNan(Unread):
        def rate(self, requests: Sequence[Request], report: object) -> list[Rating]:  # noqa: ARG002
            return [Rating([-1.0 if n else math.nan], [False], []) for n in range(len(requests))]

    changed = dataclasses.replace(lanes, settings=Settings(limit=2))
    for name in write_tasks(tmp_path)[:5]:
        (task,) = open_harness_tasks([name], changed, PartlyNan(), PartlyNan())
        first, second = answer_all(task)
        assert first.answers[0].scores == {}
        assert first.answers[0].option is None
        assert second.answers[0].scores.keys() == {metric.key for metric in task.record.metrics}
        ends = {metric.key: None for metric in task.record.metrics if not metric.mean}
        assert task.end([first, second]).scores == [ends]


def test_a_text_that_no_number_begins_has_no_score(lanes: EvaluatedLanes, tmp_path: Path) -> None:
    class PartlySilent(Unread):
        def generate(self, prompts: Sequence[Prompt], report: object) -> list[Continuations]:  # noqa: ARG002
            texts = [Continuation([5] * n, "", None, None) for n in range(len(prompts))]
            return [Continuations([text], []) for text in texts]

    name = write_task(tmp_path, "writing", **GENERATION)
    changed = dataclasses.replace(lanes, settings=Settings(limit=2))
    (task,) = open_harness_tasks([name], changed, PartlySilent(), PartlySilent())
    scores = [item.answers[0].scores for item in answer_all(task)]
    assert scores == [{}, {"exact_match,none": 0.0}]


def test_the_digest_knows_documents_and_examples(lanes: EvaluatedLanes, tmp_path: Path) -> None:
    def digest(seed: int, rows: Sequence[dict[str, Any]] = ROWS) -> str:
        path = write_task(tmp_path, "x", rows, **OPTIONS | {"num_fewshot": 2})
        (task,) = open_in(lanes, path, seed=seed)
        return task.record.digest

    assert digest(1) == digest(1)
    assert len({digest(1), digest(2), digest(1, ROWS[:-1])}) == 3


def test_the_demo_needs_no_network(
    lanes: EvaluatedLanes,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def no_network(*_: Any, **__: Any) -> NoReturn:
        raise OSError("no network")

    monkeypatch.setattr(socket, "socket", no_network)
    # Its prompts are longer than a tiny model's context.
    options, writing, mmlu = open_in(lanes, *DEMO_TASKS)
    sums, questions = answer_all(options), answer_all(mmlu)

    # The same sums.
    assert [item.hash for item in sums] == [
        item.hash for item in answer_all(open_in(lanes, "additions")[0])
    ]
    assert options.record.items == writing.record.items == 60
    for item in sums:
        texts = [option.text for option in item.options]
        assert len({*texts}) == 4
        first, second = re.findall(r"\$(\d+)", item.question)
        assert item.gold == texts[item.gold_option] == str(int(first) + int(second))
        assert item.contexts[0].endswith(f"\n{item.question}")
        assert item.contexts[0].count("=") == 9
    assert len(questions) == 57
    anatomy = questions[1]
    assert anatomy.question.startswith("Which of the following is the body cavity")
    assert [option.text for option in anatomy.options] == ["A", "B", "C", "D"]
    assert anatomy.gold == "B"
    # Examples of the same subject with their answers, never the question itself.
    context = anatomy.contexts[0]
    assert context.count(anatomy.question) == 1
    assert context.startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\nThe pleura\n"
    )
    assert context.count("\nAnswer: ") == 2
    assert (
        "extend into the neck.\nD. are composed of respiratory epithelium.\nAnswer: C\n\n"
        in context
    )
    assert capfd.readouterr() == ("", "")
