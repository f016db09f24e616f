"""A task of lm-eval, answered in all lanes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.utils import normalize_gen_kwargs

from ...errors import UserError
from ...foreign import foreign_code
from ...results import records
from ..lanes import EvaluatedLanes
from ..requests import Continuations, Generator, Prompt, Rater, Rating, Request
from .definitions import Definition
from .documents import (
    Document,
    build_documents,
    filter_names,
    gold_of,
    question_of,
    score,
)
from .plain import digest, document_hash, plain
from .sealed import sealed
from .stock_requests import StockRequests, Text

RATED = 64
"""Documents of a chunk where options or texts are rated."""

_KINDS: dict[str, records.Kind] = {
    "multiple_choice": "options",
    "loglikelihood": "likelihood",
    "loglikelihood_rolling": "likelihood",
    "generate_until": "generation",
}


class HarnessTask:
    """What rating and generation share: documents, lm-eval's scores, and the task's record."""

    def __init__(self, definition: Definition, lanes: EvaluatedLanes, stock: StockRequests) -> None:
        self._task: ConfigurableTask = definition.task
        self._lane_count = len(lanes.models)
        self._stock = stock
        lanes.progress(f"making the prompts of {self.name}", None)
        self._documents = build_documents(self._task, lanes.settings, stock)
        self.record = self._record(definition, lanes.settings)

    @property
    def name(self) -> str:
        return str(self._task.config.task)

    def _record(self, definition: Definition, settings: records.Settings) -> records.Task:
        config = plain(self._task.config.to_dict(keep_callable=True))
        # Where the file lies says nothing about the task.
        config.get("metadata", {}).pop("config_source", None)
        hashes = [document_hash(document.content) for document in self._documents]
        prompts = [[*map(plain, i.args)] for d in self._documents for i in d.instances]
        num_fewshot = self._task.config.num_fewshot or 0
        notes: list[str] = []
        if settings.num_fewshot not in (None, num_fewshot):
            notes.append(
                f"Task {self.name} is defined without examples: --num-fewshot "
                f"{settings.num_fewshot} leaves it so, as in lm-eval."
            )
        return records.Task(
            name=self.name,
            kind=_KINDS[str(self._task.OUTPUT_TYPE)],
            items=len(self._documents),
            total=len(self._task.eval_docs),
            metrics=self._metrics(),
            version=str(self._task.VERSION),
            digest=digest(config, hashes, prompts),
            group=definition.group,
            weight_by_size=definition.weight_by_size,
            num_fewshot=num_fewshot,
            config=config,
            notes=notes,
        )

    def _metrics(self) -> list[records.Metric]:
        higher = self._task.higher_is_better()
        return [
            records.Metric(
                name=name,
                filter=each,
                higher_is_better=bool(higher.get(name, True)),
                mean=aggregate is mean,
            )
            for name, aggregate in self._task.aggregation().items()
            if name != "bypass"
            for each in filter_names(self._task)
        ]

    def end(self, items: list[records.Item]) -> records.End:
        """Scores that lm-eval does not take for a mean over the items, by its own aggregation; null
        where an item has none, as its log probabilities are no numbers."""
        aggregation = self._task.aggregation()
        scores: list[dict[str, float | None]] = []
        for lane in range(self._lane_count):
            answers = [item.answers[lane].scores for item in items]
            scores.append({})
            for metric in self.record.metrics:
                values = [_unplain(each[metric.key]) for each in answers if metric.key in each]
                if metric.mean or not values:
                    continue
                if not all(answers):
                    scores[lane][metric.key] = None
                    continue
                what = f"lm-eval cannot compute {metric.name} of task {self.name}"
                with foreign_code(what), sealed():
                    scores[lane][metric.key] = plain(float(aggregation[metric.name](values)))
        return records.End(task=self.name, scores=scores)

    def _item(self, document: Document, **fields: Any) -> records.Item:
        content = plain(document.content)
        return records.Item(
            task=self.name,
            index=document.index,
            hash=document_hash(document.content),
            question=question_of(self._task, document.content),
            doc=content if isinstance(content, dict) else {"document": content},
            target=str(self._task.doc_to_target(document.content)),
            **fields,
        )

    def _choices(self, document: Document) -> list[str]:
        """Texts of the options, or of those that the gold of a generation names by its index."""
        if self._task.config.doc_to_choice is None or self.record.kind == "likelihood":
            return []
        return [*map(str, self._task.doc_to_choice(document.content))]

    def _error(self, document: Document, error: UserError) -> UserError:
        return UserError(f"task {self.name}, item {document.index}: {error}")


class RatedTask(HarnessTask):
    """A task whose options, or texts, are rated."""

    chunk = RATED

    def __init__(
        self,
        definition: Definition,
        lanes: EvaluatedLanes,
        stock: StockRequests,
        rater: Rater,
    ) -> None:
        super().__init__(definition, lanes, stock)
        self._rater = rater
        if self._task.OUTPUT_TYPE != "loglikelihood_rolling":
            self._check_options()

    def _check_options(self) -> None:
        """Raise `UserError` for an option that cannot be rated, before any is."""
        checked: set[str] = set()
        with foreign_code(f"the texts of task {self.name} cannot be turned into tokens"), sealed():
            for document in self._documents:
                for instance in document.instances:
                    arguments: Any = instance.args
                    option = arguments[1]
                    if option in checked:
                        continue
                    checked.add(option)
                    try:
                        self._stock.check_option(option)
                    except UserError as error:
                        raise self._error(document, error) from error

    def answer(self, first: int, last: int, report: Callable[[float], None]) -> list[records.Item]:
        documents = self._documents[first:last]
        with foreign_code(f"the texts of task {self.name} cannot be turned into tokens"), sealed():
            texts = [self._texts(document) for document in documents]
        requests = [*dict.fromkeys(t.request for d in texts for i in d for t in i)]
        ratings = dict(zip(requests, self._rater.rate(requests, report), strict=True))
        lanes: list[list[records.Answer]] = []
        for lane in range(self._lane_count):
            responses = [
                [self._response(each, ratings, lane) for each in instances] for instances in texts
            ]
            scored = score(self._task, documents, responses)
            lanes.append(
                [
                    self._answer(document, each, scores)
                    for document, each, (scores, _) in zip(
                        documents, responses, scored, strict=True
                    )
                ]
            )
        return [
            self._rated_item(document, instances, ratings, [lane[i] for lane in lanes])
            for i, (document, instances) in enumerate(zip(documents, texts, strict=True))
        ]

    def _texts(self, document: Document) -> list[list[Text]]:
        try:
            return [self._stock.texts(instance) for instance in document.instances]
        except UserError as error:
            raise self._error(document, error) from error

    def _response(
        self, texts: Sequence[Text], ratings: dict[Request, Rating], lane: int
    ) -> tuple[float, bool] | float:
        """What lm-eval's model answers: log probability and whether it is greedy, or the sum over
        the windows of a long text."""
        logprobs = [ratings[text.request].logprobs[lane] for text in texts]
        if self._task.OUTPUT_TYPE == "loglikelihood_rolling":
            return sum(logprobs)
        return logprobs[0], ratings[texts[0].request].greedy[lane]

    def _option_count(self, document: Document) -> int:
        """Number of options; requests after them rate the options without the question."""
        return len(self._choices(document)) or len(document.instances)

    def _answer(
        self, document: Document, responses: Sequence[Any], scores: dict[str, Any]
    ) -> records.Answer:
        rolling = self._task.OUTPUT_TYPE == "loglikelihood_rolling"
        if np.isnan(responses if rolling else [logprob for logprob, _ in responses]).any():
            # lm-eval would take NaN for the highest.
            scores = {}
        if rolling:
            return records.Answer(scores=scores, logprobs=[*map(plain, responses)])
        options = responses[: self._option_count(document)]
        logprobs = [logprob for logprob, _ in options]
        best = None
        if self.record.kind == "options" and not np.isnan(logprobs).any():
            best = int(np.argmax(logprobs))
        return records.Answer(
            scores=scores,
            option=best,
            logprobs=[*map(plain, logprobs)],
            greedy=[greedy for _, greedy in options],
        )

    def _rated_item(
        self,
        document: Document,
        texts: Sequence[Sequence[Text]],
        ratings: dict[Request, Rating],
        answers: list[records.Answer],
    ) -> records.Item:
        choices = self._choices(document)
        count = self._option_count(document)
        rolling = self._task.OUTPUT_TYPE == "loglikelihood_rolling"
        gold = gold_of(self._task, document.content, choices) if not rolling else None
        arguments = [("", *i.args)[-2:] for i in document.instances[:count]]
        contexts = [*dict.fromkeys(context for context, _ in arguments)]
        options = [
            records.Option(
                text=(choices[number] if choices else continuation),
                tokens=[token for text in texts[number] for token in text.request.continuation],
                context=contexts.index(context),
                continuation=continuation,
            )
            for number, (context, continuation) in enumerate(arguments)
        ]
        # An empty text has no windows.
        right = texts[(gold and gold.option) or 0][:1]
        return self._item(
            document,
            gold=gold.text if gold else "",
            contexts=contexts,
            tokens=[token for text in right for token in text.request.context],
            answers=answers,
            # A whole text has no answering position.
            drift=[] if rolling else [*ratings[right[0].request].drift],
            options=options,
            gold_option=gold.option if gold and self.record.kind == "options" else None,
            truncated=max((text.truncated for each in texts[:count] for text in each), default=0),
        )


class GeneratedTask(HarnessTask):
    """A task whose answers are generated."""

    def __init__(
        self,
        definition: Definition,
        lanes: EvaluatedLanes,
        stock: StockRequests,
        generator: Generator,
    ) -> None:
        super().__init__(definition, lanes, stock)
        self._generator = generator
        self.chunk = lanes.settings.batch_size
        settings = definition.task.config.generation_kwargs or {}
        length = normalize_gen_kwargs(settings, stock.max_gen_toks).get("max_gen_toks", 0)
        if length >= stock.max_length:
            raise UserError(
                f"task {self.name} generates up to {length} tokens, and {lanes.loaded.name} reads "
                f"at most {stock.max_length}; set max_gen_toks in a YAML file of the task"
            )

    def answer(self, first: int, last: int, report: Callable[[float], None]) -> list[records.Item]:
        documents = self._documents[first:last]
        with (
            foreign_code(f"the prompts of task {self.name} cannot be turned into tokens"),
            sealed(),
        ):
            prompts = [self._prompt(document) for document in documents]
        written = self._generator.generate([prompt for prompt, _ in prompts], report)
        lanes: list[list[records.Answer]] = []
        for lane in range(self._lane_count):
            texts = [
                self._text(document, each, lane)
                for document, each in zip(documents, written, strict=True)
            ]
            scored = score(self._task, documents, [[text] for text in texts])
            lanes.append(
                [
                    self._answer(text, each, lane, *scores)
                    for text, each, scores in zip(texts, written, scored, strict=True)
                ]
            )
        return [
            self._generated_item(document, *prompts[i], written[i], [lane[i] for lane in lanes])
            for i, document in enumerate(documents)
        ]

    def _prompt(self, document: Document) -> tuple[Prompt, int]:
        (instance,) = document.instances
        try:
            return self._stock.prompt(instance)
        except UserError as error:
            raise self._error(document, error) from error

    def _text(self, document: Document, written: Continuations, lane: int) -> str:
        (instance,) = document.instances
        with foreign_code(f"the answers to task {self.name} cannot be decoded"), sealed():
            return self._stock.generated_text(instance, written.lanes[lane].tokens)

    def _answer(
        self,
        text: str,
        written: Continuations,
        lane: int,
        scores: dict[str, Any],
        filtered: dict[str, str],
    ) -> records.Answer:
        continuation = written.lanes[lane]
        return records.Answer(
            # Only logits that are no numbers choose no first token.
            scores=scores if continuation.tokens else {},
            text=text,
            tokens=continuation.tokens,
            filtered=filtered,
            divergence=continuation.divergence,
            kl=continuation.kl,
        )

    def _generated_item(
        self,
        document: Document,
        prompt: Prompt,
        truncated: int,
        written: Continuations,
        answers: list[records.Answer],
    ) -> records.Item:
        return self._item(
            document,
            gold=gold_of(self._task, document.content, self._choices(document)).text,
            contexts=[document.instances[0].args[0]],
            tokens=[*prompt.tokens],
            answers=answers,
            drift=[*written.drift],
            truncated=truncated,
            until=[*prompt.until],
            max_new_tokens=prompt.max_new_tokens,
        )


def _unplain(value: Any) -> Any:
    """What lm-eval aggregates, from JSON: not a number for null, in lists too."""
    if isinstance(value, list):
        return [_unplain(each) for each in value]
    return float("nan") if value is None else value
