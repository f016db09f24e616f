"""What tells a model's weights from others, wherever their files lie."""

import hashlib

import torch
from transformers import PreTrainedModel

RUNS = 8
RUN = 32
"""Numbers in a row: each run is read from few pages of the file."""


@torch.inference_mode()
def fingerprint(model: PreTrainedModel) -> str:
    """A hash of every parameter's name and shape, and of 8 runs of 32 numbers spread over it.

    The numbers count in float32: a model in the dtype of its file has the fingerprint of the same
    model made wider. A change of other numbers alone, of the config or of the tokenizer is not
    seen.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.reshape(-1)
        starts = range(0, len(flat), max(RUN, len(flat) // RUNS))
        sample = torch.cat([flat[start : start + RUN] for start in starts] or [flat])
        digest.update(f"{name}\0{[*parameter.shape]}\0".encode())
        digest.update(sample.float().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
