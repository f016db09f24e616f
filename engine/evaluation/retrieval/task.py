"""A retrieval task: each query's ten most similar documents in all lanes, and their nDCG@10."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch
import transformers
from torch import Tensor

from ...measure.drift import cosine, par_and_orth
from ...model.fingerprint import weights_fingerprint
from ...results.records import Answer, End, Item, Match, Metric, Task
from ..lanes import EvaluatedLanes
from ..requests import Embedder
from .beir import read_beir_folder
from .data import Query, RetrievalData, digest
from .embedding import CorpusEmbeddings, embed_texts
from .human_eval import read_human_eval
from .ndcg import ndcg
from .pooling import EmbeddedText, TextReader
from .search import Search, places_of

NDCG = Metric(name="ndcg_at_10")

DEMO_TOKENS = 96
"""Tokens of a text at most in the demo, the prompt included."""

VERSION = "1"
"""Version of how texts are read and documents ranked."""

NO_TEMPLATE = (
    "Retrieval embeds texts without the chat template, whatever --apply-chat-template says."
)

SAME_ID = (
    "A document of the query's own id is left out of what the query finds, as in BEIR's evaluation."
)


def open_retrieval_task(folder: str, lanes: EvaluatedLanes, reader: Embedder) -> "RetrievalTask":
    """Open a folder in BEIR's layout. Raises `UserError` for what is wrong with it, and for
    settings that the model cannot follow."""
    return RetrievalTask(read_beir_folder(folder), lanes, reader)


def open_demo_retrieval(lanes: EvaluatedLanes, reader: Embedder) -> "RetrievalTask":
    """Open HumanEval's docstrings as queries for their solutions, pooled in the demo's own way,
    whatever the settings say. Raises `UserError` if the package human-eval is not installed."""
    settings = msgspec.structs.replace(
        lanes.settings, pooling="prompt", instruction=None, max_tokens=DEMO_TOKENS
    )
    lanes = dataclasses.replace(lanes, settings=settings)
    return RetrievalTask(read_human_eval(), lanes, reader)


class RetrievalTask:
    """An `EvaluationTask` over queries; the first answer embeds the corpus."""

    chunk = 64

    def __init__(self, data: RetrievalData, lanes: EvaluatedLanes, embedder: Embedder) -> None:
        settings = lanes.settings
        self._data = data
        self._queries = data.queries[: settings.limit]
        self._lane_count = len(lanes.models)
        self._embedder = embedder
        self._reader = TextReader(lanes.loaded, settings)
        self._corpus = CorpusEmbeddings(
            data.corpus, self._reader, embedder, lambda: _embeddings_key(lanes)
        )
        ids = data.corpus.ids
        self._numbers = {document: number for number, document in enumerate(ids)}
        self._places = places_of(ids)
        config: dict[str, Any] = {
            "pooling": settings.pooling,
            "instruction": settings.instruction,
            "max_tokens": self._reader.length,
        }
        asked = [json.dumps([query.id, query.text, query.relevance]) for query in self._queries]
        self.record = Task(
            name=data.name,
            kind="retrieval",
            items=len(self._queries),
            total=len(data.queries),
            metrics=[NDCG],
            version=VERSION,
            digest=digest(VERSION, json.dumps(config), data.corpus.digest, *asked),
            config=config,
            notes=[
                *([SAME_ID] if self._numbers.keys() & {q.id for q in data.queries} else []),
                *([NO_TEMPLATE] if lanes.settings.apply_chat_template else []),
            ],
        )

    def answer(self, first: int, last: int, report: Callable[[float], None]) -> list[Item]:
        """Find the documents of the queries `first` to `last` - 1 in all lanes."""
        queries = self._queries[first:last]
        documents = len(self._data.corpus.ids)
        share = documents / (documents + len(queries))
        corpus = self._corpus.chunks(lambda done: report(share * done))
        texts = [self._reader.query(query.text) for query in queries]
        embeddings = embed_texts(
            *(texts, self._reader, self._embedder),
            lambda done: report(share + (1 - share) * done),
        )
        searches = self._search(queries, embeddings, corpus)
        cosines = _cosines(embeddings)
        return [
            self._item(first + row, query, texts[row], row, searches, cosines)
            for row, query in enumerate(queries)
        ]

    def end(self, items: list[Item]) -> End:  # noqa: ARG002
        """Remove the corpus's embeddings from the cache: all scores are means."""
        self._corpus.remove()
        return End(task=self.record.name, scores=[{} for _ in range(self._lane_count)])

    def _search(
        self, queries: list[Query], embeddings: Tensor, corpus: list[Tensor]
    ) -> list[Search]:
        """Per lane, the documents found of its own corpus embeddings."""
        own = np.array([self._numbers.get(query.id, -1) for query in queries], np.int64)
        searches = [Search(of_lane, own, self._places) for of_lane in embeddings]
        first = 0
        for chunk in corpus:
            for search, of_lane in zip(searches, chunk, strict=True):
                search.add(first, of_lane)
            first += chunk.shape[1]
        return searches

    def _item(
        self,
        number: int,
        query: Query,
        text: EmbeddedText,
        row: int,
        searches: list[Search],
        cosines: np.ndarray,
    ) -> Item:
        answers = []
        for search, similarity in zip(searches, cosines[:, row], strict=True):
            matches = [
                Match(
                    id=(document := self._data.corpus.ids[found]),
                    similarity=float(value),
                    relevance=query.relevance.get(document, 0),
                )
                for found, value in zip(
                    search.documents[row], search.similarities[row], strict=True
                )
                if np.isfinite(value)
            ]
            score = ndcg([match.id for match in matches], query.relevance)
            # Where there is a query, only embeddings without a direction find nothing.
            scored = bool(matches) or not text.tokens
            answers.append(
                Answer(
                    scores={NDCG.key: score} if scored else {},
                    matches=matches,
                    cosine=float(similarity) if np.isfinite(similarity) else None,
                )
            )
        relevant = sorted(
            (document for document, relevance in query.relevance.items() if relevance > 0),
            key=lambda document: -query.relevance[document],
        )
        return Item(
            task=self.record.name,
            index=number,
            hash=digest(query.id, query.text, json.dumps(query.relevance)),
            question=query.text,
            gold=", ".join(relevant),
            contexts=[text.text],
            tokens=[*text.tokens],
            answers=answers,
            truncated=text.cut,
            doc={"_id": query.id},
        )


def _cosines(embeddings: Tensor) -> np.ndarray:
    """Cosine similarities of all lanes' embeddings to the baseline's, float64 [lanes, queries]; NaN
    where one of the two has no direction. `embeddings` [lanes, queries, hidden]."""
    x = embeddings[0].double()
    d = embeddings.double() - x
    with np.errstate(invalid="ignore"):
        dots = ((a * b).sum(dim=-1).numpy() for a, b in ((x, x), (x, d), (d, d)))
        return cosine(*par_and_orth(*dots))


def _embeddings_key(lanes: EvaluatedLanes) -> list[str]:
    """What the bits of embeddings depend on, apart from the tokens of the texts."""
    groups = {lane.group for lane in lanes.models}
    fingerprints = {group: weights_fingerprint(group.model) for group in groups}
    model = lanes.loaded.model
    key = [
        *(lanes.loaded.fingerprint, str(model.dtype), str(model.device)),
        *(torch.__version__, transformers.__version__, str(torch.get_num_threads())),
        str(lanes.settings.batch_size),
    ]
    for lane in lanes.models:
        key += [fingerprints[lane.group], json.dumps(lane.dropped.lists)]
    return key
