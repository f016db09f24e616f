"""Fingerprints of models: of the weights for traces, of the files for caches."""

import hashlib
from pathlib import Path

import torch
from transformers import PreTrainedModel

RUNS = 8
RUN = 32
"""Consecutive numbers in a run: each is read from few pages of the file."""


@torch.inference_mode()
def weights_fingerprint(model: PreTrainedModel) -> str:
    """A hash of every parameter's name and shape, and of 8 runs of 32 numbers spread over it.

    The numbers are hashed as float32, so that a model has one fingerprint in the dtype of its file
    and in a wider one. A change of other numbers, of the config or of the tokenizer goes unseen.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.reshape(-1)
        starts = range(0, len(flat), max(RUN, len(flat) // RUNS))
        sample = torch.cat([flat[start : start + RUN] for start in starts] or [flat])
        digest.update(f"{name}\0{[*parameter.shape]}\0".encode())
        digest.update(sample.float().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def files_fingerprint(directory: Path, model: PreTrainedModel) -> str:
    """A hash of the model's dtype and of every file's path, size and modification time."""
    parts = [str(model.dtype)]
    for file in sorted(file for file in directory.iterdir() if file.is_file()):
        parts += file_identity(file)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def file_identity(path: Path) -> list[str]:
    """A file's absolute path, size and modification time in ns."""
    stat = path.stat()
    return [str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns)]
