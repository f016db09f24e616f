"""Records of a trace file, one a line.

A trace is UTF-8 text, one JSON object a line: a `Header`, then a `Step` for each decoding step
and a `Rewind` where decoding was taken back. Lane 0 is the baseline; "variant v" is lane v + 1.
Lists "per variant" leave the baseline out. JSON has no NaN and no infinity: a number that is
not finite is null.
"""

from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec

from ..options import Options
from .blame import Blame, Int, Plain

VERSION = 1
"""Version of the format, raised whenever an older prunetui could misread a newer trace."""

MAX_LANES = 256
"""Limit of lanes: each has a model's weights, and room on the screen and in every report."""

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Base of what a line holds; its field `kind` names the type."""


class Model(Plain, frozen=True):
    name: str
    family: str
    """`model_type` in the model's config.json."""
    layers: Int
    hidden_size: int
    vocab_size: int
    parameters: int
    dtype: str
    device: str
    context_length: int | None
    """Maximum positions; None if the config names none."""
    fingerprint: str | None = None
    """Hash of the weights' names, shapes and some of their numbers, wherever their files lie."""


class Lane(Plain, frozen=True):
    name: str
    recipe: str | None
    """Recipe without its name; None for the baseline."""
    dropped_attention: list[Int]
    """Layers whose attention does not reach the residual stream."""
    dropped_mlp: list[Int]
    sparsity: float | None = None
    """Share of zeros in the matrices inside the layers; None where they are the baseline's."""
    pattern: str | None = None
    """N:M, if at least N of every M consecutive inputs are zero in all these matrices."""


class Prompt(Plain, frozen=True):
    text: str
    """Text as typed."""
    chat_template: bool
    tokens: list[Int]
    """Tokens that the model read, the chat template included."""


class Answers(Plain, frozen=True):
    """Tokens among which an answer is chosen: a subspace of the vocabulary."""

    texts: list[str]
    tokens: list[Int]


class Sampling(Plain, frozen=True):
    temperature: float
    """Temperature T; 0 is greedy decoding, and measured with T = 1."""
    top_k: int
    top_p: float
    seed: int
    max_new_tokens: int
    ignore_eos: bool

    @property
    def measured_temperature(self) -> float:
        """T in p = softmax(z / T)."""
        return self.temperature or 1.0


class Header(Record, frozen=True):
    version: int
    model: Model
    lanes: list[Lane]
    prompt: Prompt
    sampling: Sampling
    context: Literal["free", "forced", "both"]
    """Tokens that lanes read. free: each its own. forced: all the baseline's. both: free, with a
    second row per variant that reads the baseline's, for `Step.local`."""
    noise_floor: float
    """Largest change of a logit when the baseline is a row of a batch instead of alone."""
    bandwidth: float
    """Bytes per second at which the device reads its memory, the fastest of a few large reads at
    load: by the GPU's clock on CUDA, elsewhere by the host's; the first GPU's where a model is
    spread."""
    versions: dict[str, str]
    """Versions of prunetui and of the libraries that computed the numbers."""
    created: str
    """Time of recording, ISO 8601, UTC."""
    options: Options | None = None
    """Options of the session, from which it can be opened again."""
    answers: Answers | None = None
    notes: list[str] = []
    """Sentences from loading that a reader of the numbers must know."""
    session: str | None = None
    """Random name of the session, the same in each of its traces; None in old traces."""


class Token(Plain, frozen=True):
    """Token chosen by a lane at a step; in a forced context it is not what the lane reads next."""

    token: Int
    text: str
    """Text that it adds to the lane's; empty inside a UTF-8 character."""
    prob: float | None
    """Probability under the lane's own p = softmax(z / T)."""
    logprob: float | None
    """Log probability, in nats."""
    entropy: float | None
    """Entropy of the lane's p, in nats."""
    margin: float | None
    """Highest logit less the second highest."""
    ended: bool
    """Whether this token ends the lane."""
    forced: bool = False
    """Whether the user chose it, not the lane."""
    not_numbers: bool = False
    """Whether the lane's logits have NaN, infinity, or nothing but minus infinity, and so no
    softmax. The lane chose nothing: unless `forced`, `token` only stands in for what it reads
    next, `text` is empty, and it does not end the lane."""


class Candidates(Plain, frozen=True):
    """Union of all lanes' top-k tokens, most probable in the baseline first."""

    tokens: list[Int]
    texts: list[str]
    probs: list[list[float | None] | None]
    """Probability per lane and token; None for a lane that has ended. A lane whose logits are not
    numbers adds no tokens and has no probability."""


def one_minus(cosine: float | None) -> float | None:
    """1 − cos; 0 where rounding brought a cosine past 1."""
    return None if cosine is None else max(1 - cosine, 0.0)


class Drift(Plain, frozen=True):
    """Distances of a variant's vectors from the baseline's at one step (arXiv 2603.24652).

    x is the baseline's vector, y the variant's, d = y - x; spaces are the embedding h, the logit
    z = W h and the probability p = softmax(z / T) (q for the variant).
    """

    cos_h: float | None
    cos_z: float | None
    cos_p: float | None
    cos_z_centred: float | None
    """Cosine of z after each vector's mean is subtracted: softmax ignores a common offset."""
    par_h: float | None
    """<d, x> / |x|^2"""
    orth_h: float | None
    """|d - par x| / |x|"""
    par_z: float | None
    orth_z: float | None
    est_h: float | None
    """orth_h^2 / 2 estimates 1 - cos_h (Theorem 1)."""
    est_z: float | None
    est_p: float | None
    """Var_r(dz) / (2 T^2), r_i = p_i^2 / |p|^2, estimates 1 - cos_p (Theorem 2)."""
    kl: float | None
    """KL(p ‖ q), p baseline, q variant, in nats."""
    kl_rev: float | None
    """KL(q ‖ p), in nats."""
    est_kl: float | None
    """Var_p(dz) / (2 T^2) estimates KL(p ‖ q), in nats (Theorem 3)."""
    top1: bool
    """Whether both lanes' most probable token is the same."""
    dp: float | None
    """Probability of the baseline's chosen token, variant minus baseline."""
    logq: float | None
    """Variant's log probability of the baseline's chosen token, in nats."""
    not_comparable: bool = False
    """Whether the logits of variant or baseline are `not_numbers`: measures of z and p are null,
    `top1` is false, and measures of h are there if h is finite."""

    def distance(self, space: str) -> float | None:
        """1 − cos in the space h, z or p, or KL(p ‖ q) in nats for `kl`."""
        return self.kl if space == "kl" else one_minus(getattr(self, f"cos_{space}"))


class AnswerNumbers(Plain, frozen=True):
    """Logits and log probabilities of the header's answers in one lane."""

    z: list[float | None]
    logprob: list[float | None]
    """Log probabilities over the whole vocabulary, in nats."""


class Transition(Plain, frozen=True):
    """Change that a sublayer's output makes to its stream: cosine similarities of before and after
    in h (the stream), z (its lens) and p = softmax(z / T)."""

    cos_h: float | None
    cos_z: float | None
    cos_p: float | None
    kl: float | None
    """KL(before ‖ after), in nats."""


class LaneLens(Plain, frozen=True):
    """Logit lens of a lane: its residual stream read by the head before attention 0 and after every
    sublayer, in the order attention 0, MLP 0, attention 1, …"""

    tokens: list[Int]
    """Most probable token at each point, through the final norm and the head; of no meaning, with
    an empty text and no probability, where the logits are not numbers."""
    texts: list[str]
    probs: list[float | None]
    raw_tokens: list[Int]
    """Most probable token at each point, through the head alone."""
    raw_texts: list[str]
    raw_probs: list[float | None]
    transitions: list[Transition]
    """Change per sublayer, through the final norm and the head."""


class Lens(Plain, frozen=True):
    lanes: list[LaneLens | None]
    """Entry per lane; None for a lane that has ended, or whose model has another depth than the
    baseline's or does more than a norm before its head."""
    local: list[LaneLens | None] | None
    """Entry per variant on the baseline's tokens, in context both."""

    def local_of(self, lane: int) -> LaneLens | None:
        return _of_lane(self.local, lane)


class Step(Record, frozen=True):
    step: Int
    lanes: list[Token | None]
    """Token per lane; None for a lane that ended at an earlier step."""
    candidates: Candidates
    drift: list[Drift | None]
    """Drift per variant; None once the variant or the baseline has ended."""
    layers: list[list[float | None] | None]
    """Cosine similarities per variant, of its residual stream to the baseline's after each
    sublayer, in the order attention 0, MLP 0, attention 1, …, to seven decimals, which is what
    float32 has near 1; None as in `drift`."""
    seconds: float
    """Wall time of the whole step on the host: forward passes, choice of tokens, measures and lens;
    writing it down is left out."""
    read: Int
    """Bytes of weights and caches that the step's forward passes read."""
    memory: Int
    """Bytes allocated on the GPU, or resident for a session on the CPU."""
    local: list[Drift | None] | None = None
    """Drift per variant on the baseline's tokens, in context both: what pruning does to this step
    alone, where `drift` on the variant's own tokens has its history too."""
    local_layers: list[list[float | None] | None] | None = None
    """Cosine similarities as in `layers`, on the baseline's tokens."""
    answers: list[AnswerNumbers | None] | None = None
    """Answers' numbers per lane, if the header names answers; None for a lane that has ended."""
    local_answers: list[AnswerNumbers | None] | None = None
    """Answers' numbers per variant, on the baseline's tokens."""
    block: Int | None = None
    """Index of the step's block in the vector files beside the trace, if vectors are recorded."""
    lens: Lens | None = None
    """Logit lens, if it was read with the step."""
    blames: list[Blame] = []
    """What was found of lanes that were blamed at the step, the newest last."""

    # By the index of a lane; None for the baseline, and where the list is absent.

    def drift_of(self, lane: int) -> Drift | None:
        return _of_lane(self.drift, lane)

    def local_of(self, lane: int) -> Drift | None:
        return _of_lane(self.local, lane)

    def layers_of(self, lane: int) -> list[float | None] | None:
        return _of_lane(self.layers, lane)

    def local_layers_of(self, lane: int) -> list[float | None] | None:
        return _of_lane(self.local_layers, lane)

    def local_answers_of(self, lane: int) -> AnswerNumbers | None:
        return _of_lane(self.local_answers, lane)


def _of_lane(per_variant: Sequence[T | None] | None, lane: int) -> T | None:
    """Entry of a lane in a list per variant, which leaves out lane 0, the baseline."""
    return per_variant[lane - 1] if lane and per_variant else None


class Read(Record, frozen=True):
    """Logit lens of a step decoded before."""

    step: Int
    lens: Lens


class Blamed(Record, frozen=True):
    """Blame of a lane at a step decoded before; it takes the place of one of the same tokens."""

    step: Int
    blame: Blame


class Rewind(Record, frozen=True):
    to: Int
    """Number of steps that stay."""


class Branch(Record, frozen=True):
    """Start of a new branch, which another token begins and the following steps belong to.

    Branches are numbered in this order; branch 0 is there from the start.
    """

    parent: Int
    """Branch that it leaves."""
    at: Int
    """Number of steps that it shares with its parent."""


class Switch(Record, frozen=True):
    to: Int
    """Branch that the following steps belong to."""


Event = Step | Read | Blamed | Rewind | Branch | Switch
