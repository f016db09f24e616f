"""GGUF files: checked, converted to a directory of safetensors, and cached in that form."""

from pathlib import Path
from typing import Any

import torch
import transformers
from gguf import GGUFReader
from safetensors.torch import save_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..disk_cache import cached
from ..errors import UserError
from ..foreign import foreign_code
from ..out_of_memory import guard_memory
from ..progress import Progress
from .checkpoint_files import WEIGHTS, CheckpointFiles
from .fingerprint import file_identity
from .loading_report import check_report


def convert_gguf(gguf: Path, progress: Progress) -> Path:
    """The cached directory of safetensors for a GGUF file; the first call dequantizes, slowly.

    Raises `UserError` for a file that cannot be read or that memory has no room for.
    """

    def convert(directory: Path) -> None:
        progress(f"converting {gguf.name} (once)", None)
        with (
            guard_memory(f"{gguf.name} does not fit into the memory of cpu"),
            foreign_code(f"{gguf.name} cannot be read as GGUF"),
        ):
            _convert(gguf, directory)

    return cached("gguf-whole", [*file_identity(gguf), transformers.__version__], convert)


def _convert(gguf: Path, directory: Path) -> None:
    _refuse_shard(gguf)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
    )
    model, report = loaded
    # Notes are dropped: GGUF has no weights outside of a model's layers that it could name.
    check_report(report, CheckpointFiles(gguf.parent, model.config.to_dict(), {}), gguf.name)
    # The weights were dequantized: the saved model is plain float32.
    vars(model.config).pop("quantization_config", None)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    save_model(model, str(directory / WEIGHTS), metadata={"format": "pt"})


def _refuse_shard(gguf: Path) -> None:
    """Raise `UserError` for one of several shards, of which transformers would read one alone.

    Raises what `GGUFReader` raises for a damaged file.
    """
    field = GGUFReader(gguf).get_field("split.count")
    count = 1 if field is None else int(field.contents())
    if count > 1:
        raise UserError(
            f"{gguf.name} is one of {count} shards; join them with `llama-gguf-split --merge` and "
            "name the one file"
        )
