"""Data of a retrieval task in memory: queries with their judgements, and access to a corpus."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    id: str
    text: str
    relevance: Mapping[str, int]
    """Relevance of the documents that were judged, by id."""


@dataclass(frozen=True)
class Corpus:
    """Documents to search, whose texts are read when they are needed."""

    ids: list[str]
    read: Callable[[int, int], list[str]]
    """Reads the texts of the documents `first` to `last` - 1."""
    digest: str
    """Hash of ids and texts."""


@dataclass(frozen=True)
class RetrievalData:
    name: str
    corpus: Corpus
    queries: list[Query]
    notes: tuple[str, ...] = ()
    """Sentences on how they are read, for the task's record."""


def digest(*parts: str) -> str:
    """Hash of texts; where one ends counts."""
    hashed = hashlib.sha256()
    add_texts(hashed, *parts)
    return hashed.hexdigest()


def add_texts(hashed: "hashlib._Hash", *parts: str) -> None:
    """Add texts to a hash, each with its length."""
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        hashed.update(b"%d:" % len(content))
        hashed.update(content)
