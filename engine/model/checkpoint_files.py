"""The files of a checkpoint, read as plain data before any library builds a model of them.

Only `config.json` and the headers of the safetensors files are read, so that a file that is cut
short, is missing or does not fit its config is named at once.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, reason
from ..files import exists
from .source import ADAPTER

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
"""The limit that the format sets."""

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Data types that weights are decoded in; others are left to the library that wrote them."""

_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
"""Keys of config.json, in the part of the text model and in others."""
_MAX_LAYERS = 1024
"""More layers than any known model has; building as many modules takes no time."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the header of its file describes it."""

    file: Path
    dtype: torch.dtype | None
    """None for a type that weights are not decoded in, such as integers."""
    shape: tuple[int, ...]
    size: int
    """Bytes in the file."""


@dataclass(frozen=True)
class CheckpointFiles:
    """A directory with a `config.json` and weights in safetensors."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    """Tensors by their names in the files."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the files that a reader of the numbers must know."""

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype that most weights are stored in; None if none is of floating point."""
        sizes: dict[torch.dtype, int] = {}
        for tensor in self.tensors.values():
            if tensor.dtype is not None:
                sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + math.prod(tensor.shape)
        return max(sizes, key=lambda dtype: sizes[dtype], default=None)

    def dtype_of(self, name: str) -> torch.dtype | None:
        """The stored dtype of a weight, named with or without the base model's prefix; that of most
        weights if the files lack it."""
        for key in (name, name.partition(".")[2], f"model.{name}", f"transformer.{name}"):
            if (tensor := self.tensors.get(key)) is not None and tensor.dtype is not None:
                return tensor.dtype
        return self.dtype


def read_checkpoint_files(directory: Path, name: str) -> CheckpointFiles:
    """Read the config and the headers of a directory.

    Raises `UserError` for a file that is missing, cut short or damaged, for weights in another
    format, for an adapter, and for a config of more layers than there are tensors.
    """
    _refuse_adapter(directory, name)
    config = _read_json(directory / CONFIG)
    notes: list[str] = []
    tensors = _read_tensors(directory, name, notes)
    _check_depth(config, len(tensors), name)
    return CheckpointFiles(directory, config, tensors, notes)


def _refuse_adapter(directory: Path, name: str) -> None:
    """Raise `UserError` for an adapter, which transformers loads only if peft is installed."""
    if exists(file := directory / ADAPTER):
        base = _read_json(file).get("base_model_name_or_path")
        of = f" of {base}" if isinstance(base, str) and base else ""
        raise UserError(
            f"{name} is a LoRA adapter{of}; merge it first (merge_and_unload of peft, then "
            "save_pretrained) and name the merged model. If it is merged already, remove "
            f"{ADAPTER}"
        )


def _read_tensors(directory: Path, name: str, notes: list[str]) -> dict[str, StoredTensor]:
    single, index = directory / WEIGHTS, directory / INDEX
    if exists(single):
        if exists(index):
            notes.append(
                f"{name} has both {WEIGHTS} and {INDEX}; the former is read, the files that the "
                "latter names are not."
            )
        return read_header(single)
    if not exists(index):
        raise UserError(_why_no_weights(directory, name))
    weight_map = read_weight_map(index)
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(weight_map.values())):
        tensors |= read_header(directory / file)
    if absent := sorted(weight_map.keys() - tensors.keys()):
        raise UserError(
            f"{name} is not whole: {INDEX} names {counted(absent, 'weight')} that "
            f"{weight_map[absent[0]]} does not hold; fetch the files again"
        )
    return tensors


def read_weight_map(index: Path) -> dict[str, str]:
    """The file of each weight, by the weight's name, in an index of shards beside them.

    Raises `UserError` for an index that does not name safetensors files of its own directory.
    """
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) and re.fullmatch(r"[^/\\\0]+\.safetensors", file)
        for file in weight_map.values()
    ):
        raise UserError(f"{index} is damaged: its weight_map does not name safetensors files")
    return weight_map


def _why_no_weights(directory: Path, name: str) -> str:
    if shards := sorted(directory.glob("model-*-of-*.safetensors")):
        return (
            f"{name} has {len(shards)} shards ({shards[0].name}, …) but no {INDEX} that says which "
            "weight is in which; fetch it too"
        )
    if others := sorted(directory.glob("*.safetensors")):
        return f"{name} has {others[0].name} but no {WEIGHTS}; rename it, if it is the model"
    if pickled := sorted([*directory.glob("*.bin"), *directory.glob("*.pt*")]):
        return (
            f"{name} has its weights in {pickled[0].name} only, a pickle, which can run code; save "
            "them as safetensors (save_pretrained does) and name that directory"
        )
    return f"{name} has no weights: there is no {WEIGHTS} in {directory}"


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file.

    Raises `UserError`, which names the file, if it is missing, cut short or damaged.
    """
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(0)
            start = opened.read(64)
            if start.startswith(b"version https://git-lfs"):
                raise UserError(
                    f"{file} is a Git LFS pointer, not the weights; `git lfs pull` fetches them"
                )
            length = int.from_bytes(start[:8], "little")
            if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise UserError(
                    f"{file} is cut short or no safetensors file ({size} bytes); fetch it again"
                )
            opened.seek(8)
            header = json.loads(opened.read(length))
            header.pop("__metadata__", None)
            ends = [0]
            tensors = {}
            for key, entry in header.items():
                begin, end = entry["data_offsets"]
                shape = tuple(map(int, entry["shape"]))
                if not 0 <= begin <= end or min(shape, default=0) < 0:
                    raise ValueError(key)
                ends.append(end)
                tensors[key] = StoredTensor(file, DTYPES.get(entry["dtype"]), shape, end - begin)
    except OSError as error:
        raise UserError(f"cannot read {file}: {reason(error)}") from error
    # A damaged header can have values of any type.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} is damaged: its header is no safetensors header") from error
    if max(ends) > size - 8 - length:
        raise UserError(
            f"{file} is cut short: it has {size} bytes and its header tells of "
            f"{8 + length + max(ends)}; fetch it again"
        )
    return tensors


def _read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `UserError` if it cannot be read or is none."""
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {file}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} is damaged: it is no JSON object")
    return value


def _check_depth(config: dict[str, Any], tensors: int, name: str) -> None:
    """Raise `UserError` for a wrong count of layers, which would take all memory to build."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in _LAYER_COUNTS:
            layers = part.get(key)
            if isinstance(layers, int) and layers > max(_MAX_LAYERS, tensors):
                raise UserError(
                    f"config.json of {name} says {key} {layers}, and its files hold {tensors} "
                    "weights in all; the two do not belong together"
                )


def counted(names: list[str], what: str) -> str:
    """Text of the number of names and the first of them: "3 weights (NAME, …)"."""
    if len(names) == 1:
        return f"1 {what} ({names[0]})"
    return f"{len(names)} {what}s ({names[0]}, …)"
