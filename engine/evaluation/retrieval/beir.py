"""Folders in BEIR's layout (arXiv 2104.08663): corpus.jsonl, queries.jsonl and qrels/test.tsv."""

import csv
import hashlib
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from ...errors import UserError, reason
from ...files import expanded, read_text
from .data import Corpus, Query, RetrievalData, add_texts

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", Path("qrels", "test.tsv")

_BOM = b"\xef\xbb\xbf"

T = TypeVar("T")


class _Document(msgspec.Struct):
    """A line of corpus.jsonl."""

    id: str = msgspec.field(name="_id")
    text: str
    title: str = ""

    @property
    def whole(self) -> str:
        """Title and text, as BEIR joins them."""
        return f"{self.title} {self.text}".strip()


class _Query(msgspec.Struct):
    """A line of queries.jsonl."""

    id: str = msgspec.field(name="_id")
    text: str


def read_beir_folder(folder: str) -> RetrievalData:
    """Read and check a folder; queries are those that the qrels name, in their order.

    The corpus is read once, to check it, and then in parts, as its texts are needed. Raises
    `UserError` for a file that is not there, is empty, does not parse or has an id twice, and for
    qrels that name what is not there.
    """
    path = expanded(folder)
    for file, content in ((CORPUS, "documents"), (QUERIES, "queries"), (QRELS, "judgements")):
        if not (path / file).is_file():
            raise UserError(
                f"{folder} is no BEIR folder: it has no {file}, the {content}; others that it may "
                "have are not read"
            )
    corpus = _read_corpus(path / CORPUS)
    qrels = _read_qrels(path / QRELS)
    texts = _read_queries(path / QUERIES, qrels.keys())
    known = set(corpus.ids)
    for query, relevance in qrels.items():
        if query not in texts:
            raise UserError(
                f"{path / QRELS} names the query {query!r}, which {QUERIES} beside it does not "
                "have; the files do not belong together"
            )
        if missing := next((document for document in relevance if document not in known), None):
            raise UserError(
                f"{path / QRELS} names the document {missing!r}, which {CORPUS} beside it does not "
                "have; the files do not belong together"
            )
    queries = [Query(query, texts[query], relevance) for query, relevance in qrels.items()]
    return RetrievalData(path.resolve().name or "corpus", corpus, queries)


def _read_corpus(file: Path) -> Corpus:
    """Check a corpus, and keep its ids and where its lines begin."""
    offsets: dict[str, int] = {}
    hashed = hashlib.sha256()
    for number, offset, line in _lines(file):
        document = _parse(line, _Document, file, number)
        if document.id in offsets:
            raise UserError(
                f"{file}, line {number}: the id {document.id!r} is there twice; give each document "
                "its own"
            )
        offsets[document.id] = offset
        add_texts(hashed, document.id, document.whole)
    if not offsets:
        raise UserError(f"{file} is empty; it needs a document in each line")
    ids, begins = [*offsets], [*offsets.values()]

    def read(first: int, last: int) -> list[str]:
        texts = []
        try:
            with file.open("rb") as stream:
                for number in range(first, last):
                    stream.seek(begins[number])
                    document = msgspec.json.decode(stream.readline(), type=_Document)
                    if document.id != ids[number]:
                        raise ValueError(document.id)
                    texts.append(document.whole)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} has changed since it was checked, or cannot be read any more; begin again"
            ) from error
        return texts

    return Corpus(ids, read, hashed.hexdigest())


def _read_queries(file: Path, asked: Collection[str]) -> dict[str, str]:
    """Texts by id of the queries that are asked."""
    texts: dict[str, str] = {}
    seen: set[str] = set()
    for number, _, line in _lines(file):
        query = _parse(line, _Query, file, number)
        if query.id in seen:
            raise UserError(
                f"{file}, line {number}: the id {query.id!r} is there twice; give each query its "
                "own"
            )
        seen.add(query.id)
        if query.id in asked:
            if not query.text.strip():
                raise UserError(
                    f"{file}, line {number}: the query {query.id!r} has no text; take it out of "
                    f"{QRELS} too"
                )
            texts[query.id] = query.text
    return texts


def _read_qrels(file: Path) -> dict[str, dict[str, int]]:
    """Relevance by query and document."""
    text = read_text(file, "qrels")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    qrels: dict[str, dict[str, int]] = {}
    try:
        header = next(rows, [])
        if len(header) != 3 or _relevance(header[2]) is not None:
            raise UserError(
                f"{file}, line 1: no header; the first line of qrels names the three columns "
                "query-id, corpus-id and score, set apart by tabs"
            )
        for row in rows:
            if not row:
                continue
            relevance = _relevance(row[2]) if len(row) == 3 else None
            if relevance is None:
                raise UserError(
                    f"{file}, line {rows.line_num}: no judgement; a line has the id of a query, "
                    "the id of a document and a whole number, set apart by tabs"
                )
            query, document = row[:2]
            known = qrels.setdefault(query, {}).setdefault(document, relevance)
            if known != relevance:
                raise UserError(
                    f"{file}, line {rows.line_num}: the document {document!r} has the relevance "
                    f"{known} and {relevance} for the query {query!r}; keep one"
                )
    except csv.Error as error:
        raise UserError(f"{file}, line {rows.line_num}: no table of tabs ({error})") from error
    if not qrels:
        raise UserError(f"{file} is empty; it needs a judgement in each line after the first")
    return qrels


def _relevance(text: str) -> int | None:
    """Whole number that a text is, None if it is none."""
    try:
        return int(text)
    except ValueError:
        return None


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset in bytes and content of each line that is not blank."""
    try:
        with file.open("rb") as stream:
            offset = 0
            for number, line in enumerate(stream, start=1):
                content = line.removeprefix(_BOM) if number == 1 else line
                if content.strip():
                    yield number, offset + len(line) - len(content), content
                offset += len(line)
    except OSError as error:
        raise UserError(f"cannot read {file}: {reason(error)}") from error


def _parse(line: bytes, kind: type[T], file: Path, number: int) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file}, line {number}: {error}; each line is a JSON object with the texts _id and "
            "text"
        ) from error
