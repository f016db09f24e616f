"""Embeddings of length 1, of which a corpus's are kept on the disk until its task has ended."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ...disk_cache import cached, remove_cached
from ...errors import UserError, reason
from ..requests import Embedder
from .data import Corpus, digest
from .pooling import EmbeddedText, TextReader

CHUNK = 256
"""Documents that are embedded and kept together: as much is lost when a run is killed."""

KIND = "corpus"
"""Directory of the cache."""

FILE = "embeddings.safetensors"


def embed_texts(
    texts: Sequence[EmbeddedText],
    reader: TextReader,
    embedder: Embedder,
    report: Callable[[float], None],
) -> Tensor:
    """Embeddings of length 1 (L2), float32 [lanes, texts, hidden].

    NaN for a text without tokens, and where an embedding is 0 or not finite: none has a direction.
    """
    # Any token stands in for none.
    tokens = [text.tokens or (0,) for text in texts]
    reader.check_ends(tokens)
    h = embedder.embed(tokens, reader.pooling, report).cpu().double()
    # Infinity over infinity, and 0 over 0, are NaN.
    embeddings = (h / h.norm(dim=-1, keepdim=True)).float()
    embeddings[:, [not text.tokens for text in texts]] = torch.nan
    return embeddings


class CorpusEmbeddings:
    """Embeddings of a corpus in all lanes, chunk by chunk.

    A chunk is embedded once, also by a run that goes on after another was killed: its directory's
    key is all that its bits depend on.
    """

    def __init__(
        self, corpus: Corpus, reader: TextReader, embedder: Embedder, key: Callable[[], list[str]]
    ) -> None:
        """`key` says what the embeddings depend on apart from the texts, such as the weights."""
        self._corpus = corpus
        self._reader = reader
        self._embedder = embedder
        self._key = key
        self._base: list[str] = []
        self._chunks: list[Tensor] = []

    def chunks(self, report: Callable[[float], None]) -> list[Tensor]:
        """Embeddings, float32 [lanes, documents, hidden], in the corpus's order.

        They are mapped from files and may be more than memory holds. Raises `UserError` if they
        cannot be kept.
        """
        size = len(self._corpus.ids)
        while (first := len(self._chunks) * CHUNK) < size:
            last = min(first + CHUNK, size)

            def part(done: float, first: int = first, last: int = last) -> None:
                report((first + done * (last - first)) / size)

            texts = self._corpus.read(first, last)

            def fill(
                directory: Path, texts: list[str] = texts, part: Callable[[float], None] = part
            ) -> None:
                self._fill(directory, texts, part)

            directory = cached(KIND, self._chunk_key(texts), fill)
            self._chunks.append(load_file(directory / FILE)["embeddings"])
            part(1)
        return self._chunks

    def remove(self) -> None:
        """Remove the files, also those of a run that was killed before."""
        self._chunks.clear()
        size = len(self._corpus.ids)
        for first in range(0, size, CHUNK):
            remove_cached(KIND, self._chunk_key(self._corpus.read(first, min(first + CHUNK, size))))

    def _fill(self, directory: Path, texts: list[str], report: Callable[[float], None]) -> None:
        read = [self._reader.document(text) for text in texts]
        embeddings = embed_texts(read, self._reader, self._embedder, report)
        try:
            (directory / FILE).write_bytes(save({"embeddings": embeddings}))
        except OSError as error:
            raise UserError(
                f"the corpus's embeddings cannot be kept in {directory.parent} ({reason(error)}); "
                "set XDG_CACHE_HOME to a disk that has room"
            ) from error

    def _chunk_key(self, texts: Sequence[str]) -> list[str]:
        self._base = self._base or self._key()
        return [*self._base, *self._reader.key, digest(*texts)]
