"""Documents of a task with lm-eval's requests for them, and their scores."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from ...errors import UserError
from ...foreign import foreign_code
from ...results.records import Settings
from .plain import plain
from .sealed import sealed
from .stock_requests import StockRequests


@dataclass(frozen=True)
class Document:
    """A document with its requests, in the order in which lm-eval scores them."""

    index: int
    instances: list[Instance]

    @property
    def content(self) -> Any:
        return self.instances[0].doc


def build_documents(
    task: ConfigurableTask, settings: Settings, stock: StockRequests
) -> list[Document]:
    """Requests of all documents asked, with the same few-shot examples for all lanes.

    Raises `UserError` for what the task's templates or the model's chat template cannot do.
    """
    name = task.config.task
    if settings.num_fewshot is not None and task.config.num_fewshot != 0:
        task.set_config("num_fewshot", settings.num_fewshot)
    elif task.config.num_fewshot is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(settings.seed)
    chat = settings.apply_chat_template
    with foreign_code(f"the prompts of task {name} cannot be made"), sealed():
        task.build_all_requests(
            limit=settings.limit,
            apply_chat_template=chat,
            # As the lm_eval command does.
            fewshot_as_multiturn=chat,
            chat_template=stock.apply_chat_template if chat else None,
        )
    documents: dict[int, list[Instance]] = {}
    for instance in task.instances:
        assert instance.doc_id is not None
        documents.setdefault(instance.doc_id, []).append(instance)
    return [
        Document(index, sorted(instances, key=lambda instance: instance.idx))
        for index, instances in documents.items()
    ]


def score(
    task: ConfigurableTask, documents: Sequence[Document], responses: Sequence[Sequence[Any]]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """What lm-eval makes of one lane's responses, per document: metrics by name and filter, and
    the first filtered response by filter. There is a response for each instance."""
    instances = [instance for document in documents for instance in document.instances]
    flat = [response for each in responses for response in each]
    for instance, response in zip(instances, flat, strict=True):
        # Greedy repeats are equal.
        instance.resps = [response] * (instance.repeats or 1)
        instance.filtered_resps = {}
    what = f"lm-eval cannot score the answers to task {task.config.task}"
    with foreign_code(what, "the log has the error"), sealed():
        for ensemble in task._filters:  # noqa: SLF001
            ensemble.apply(instances)
        scored = [_score_document(task, document) for document in documents]
    for instance in instances:
        instance.resps, instance.filtered_resps = [], {}
    return scored


def _score_document(
    task: ConfigurableTask, document: Document
) -> tuple[dict[str, Any], dict[str, str]]:
    scores: dict[str, Any] = {}
    filtered: dict[str, str] = {}
    for name in document.instances[0].filtered_resps:
        results = [instance.filtered_resps[name] for instance in document.instances]
        # Tasks may change the document.
        metrics = task.process_results(copy.deepcopy(document.content), results)
        scores |= {f"{metric},{name}": plain(value) for metric, value in metrics.items()}
        filtered[name] = str(results[0])
    return scores, filtered


def filter_names(task: ConfigurableTask) -> list[str]:
    """Names of lm-eval's filters of the answers, in the order of the task."""
    return [ensemble.name for ensemble in task._filters]  # noqa: SLF001


@dataclass(frozen=True)
class Gold:
    """The right answer of a document."""

    text: str
    option: int | None = None
    """Its index, where there is one right option."""


def gold_of(task: ConfigurableTask, document: Any, choices: Sequence[str]) -> Gold:
    """Right answer as the task has it: an index or text, or a list of those."""
    target: Any = (
        task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    )
    targets = target if isinstance(target, list) else [target]
    texts: list[str] = []
    options: list[int] = []
    for each in targets:
        if isinstance(each, int) and choices:
            options.append(each)
            texts += choices[each : each + 1]
        else:
            options += [choices.index(each)] if each in choices else []
            texts.append(str(each))
    text = " | ".join(texts)
    if len(options) == 1 and 0 <= options[0] < len(choices):
        return Gold(text, options[0])
    return Gold(text)


def question_of(task: ConfigurableTask, document: Any) -> str:
    """The question alone. Where the options are contexts, what follows them all."""
    question: Any = (
        task.doc_to_target(document) if task.multiple_input else task.doc_to_text(document)
    )
    return str(question)


def check_chat_template(stock: StockRequests, name: str) -> None:
    """Raise `UserError` for a model that has no chat template."""
    if not stock.tokenizer.chat_template:
        raise UserError(f"{name} has no chat template; leave out --apply-chat-template")
