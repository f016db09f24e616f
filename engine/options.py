"""The options of a session, as plain data without torch."""

from typing import Literal

import msgspec

DEMO = "demo"

Context = Literal["free", "forced", "both"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

POSTER_QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips "
    "in May. How many clips did Natalia sell altogether in April and May?"
)


TEMPERATURES = "0 or from 1e-6 to 1e6"


def is_temperature(value: float) -> bool:
    """Whether a temperature keeps logits / T and T² finite and not zero, or is 0 for greedy."""
    return value == 0 or 1e-6 <= value <= 1e6


def default_variants(depth: int) -> tuple[str, ...]:
    """Recipes that drop 4 and 8 attention sublayers and 8 MLPs; in a model of fewer than 8 layers,
    a quarter and half of them, rounded up."""
    small, large = (4, 8) if depth >= 8 else (-(-depth // 4), -(-depth // 2))
    recipes = (f"drop:attn={small}", f"drop:attn={large}", f"drop:mlp={large}")
    return tuple(dict.fromkeys(recipes))


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """All settings that decide what a session decodes, with the defaults of a new user.

    `model` is a Hugging Face id, a directory, a GGUF file, or `demo`. `variants` are recipes; None
    stands for `default_variants`, which a trace names. `device_map` auto spreads the model over all
    GPUs. `temperature` 0 decodes greedily. `top_k` 0 and `top_p` 1 keep the whole vocabulary.
    `prompt_tokens` are read as they are in place of `prompt`, which then is their text, and
    `answer_tokens` in place of `answers`.
    `candidates` is the k of the top-k tokens recorded per lane and step. `answers` are texts of one
    token each, whose logits are recorded; None stands for A to D. `calibration` is a text or JSONL
    file, `self` for text that the baseline samples, or `hf:NAME[:CONFIG]`, a data set, of which
    `calibration_samples` samples of `calibration_length` tokens are used: the first ones with
    `calibration_seed` 0, others with another. `keep` names the spaces, h or z, whose vectors are
    recorded beside the trace. `lens` reads the layers of every step through the logit lens.
    `graphs` replays a step on a GPU as one CUDA graph.
    """

    model: str = DEMO
    variants: tuple[str, ...] | None = None
    prompt: str = POSTER_QUESTION
    prompt_tokens: tuple[int, ...] | None = None
    raw: bool = False
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 256
    context: Context = "both"
    dtype: Dtype = "auto"
    device: str = "auto"
    device_map: Literal["auto"] | None = None
    threads: int | None = None
    candidates: int = 10
    ignore_eos: bool = False
    answers: tuple[str, ...] | None = None
    answer_tokens: tuple[int, ...] | None = None
    calibration: str | None = None
    calibration_samples: int = 16
    calibration_length: int = 256
    calibration_seed: int = 0
    trust_remote_code: bool = False
    keep: tuple[Literal["h", "z"], ...] = ()
    lens: bool = False
    graphs: bool = True
