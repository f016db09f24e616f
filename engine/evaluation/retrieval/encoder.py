"""An encoder of one lane for mteb 2, which prunetui does not need and does not import."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ...options import Options
from ...progress import Progress
from ...results.records import Settings
from ...variants.builder import open_builder
from ...variants.recipes import parse
from ..lanes import EvaluatedLanes
from ..reader import LaneReader
from .embedding import embed_texts
from .pooling import TextReader


def open_encoder(
    recipe: str, options: Options, settings: Settings, progress: Progress = lambda *_: None
) -> "LaneEncoder":
    """Load a model and prune it by a recipe; `control` leaves it as it is.

    Raises `UserError` as `prunetui eval` does.
    """
    builder = open_builder(options, progress)
    lane = builder.build(parse(recipe))
    return LaneEncoder(EvaluatedLanes(builder.loaded, [lane], options, settings, progress))


class LaneEncoder:
    """What mteb's `EncoderProtocol` asks for: texts in, embeddings of length 1 out."""

    mteb_model_meta: Any = None
    """mteb's description of the model, under whose name it keeps the results; to be set there."""

    def __init__(self, lanes: EvaluatedLanes) -> None:
        """`lanes` has one."""
        self._reader = TextReader(lanes.loaded, lanes.settings)
        self._embedder = LaneReader(lanes)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        prompt_type: object = None,
        **_: Any,
    ) -> np.ndarray:
        """Embeddings of the batches' texts (`text`), float32 [texts, hidden].

        The instruction stands before each text where `prompt_type` is "query"; mteb's other
        arguments (`task_metadata`, `hf_split`, `hf_subset`, `batch_size`, …) change nothing.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        # A string, or a member of mteb's enumeration, whose value it is.
        is_query = getattr(prompt_type, "value", prompt_type) == "query"
        read = self._reader.query if is_query else self._reader.document
        return embed_texts(
            [read(text) for text in texts], self._reader, self._embedder, lambda _: None
        )[0].numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine similarities, [embeddings1, embeddings2]."""
        x, y = _unit(embeddings1), _unit(embeddings2)
        return x @ y.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine similarities of the pairs, [embeddings]."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)


def _unit(embeddings: Any) -> torch.Tensor:
    """Embeddings [embeddings, hidden] of length 1; one alone may come as [hidden]."""
    rows = torch.atleast_2d(torch.as_tensor(embeddings, dtype=torch.float32))
    return torch.nn.functional.normalize(rows, dim=-1)
