"""Records of an evaluation file.

A file `*.eval.jsonl` is UTF-8 text, one JSON object a line: a `Header`, an `Item` for each item,
an `End` for each task that is complete. An item is written once all lanes have answered it, so that
the lanes can be compared at any moment. No line after the header depends on when it was computed.
Lane 0 is the baseline; "variant v" is lane v + 1, and lists "per variant" leave the baseline out.
JSON has no NaN and no infinity: a number that is not finite is null.
"""

from typing import Annotated, Any, Literal

import msgspec

from ..options import Options
from ..trace.records import Drift, Int, Lane, Model

VERSION = 1
"""Version of the format, raised whenever an older prunetui could misread a newer file."""

SUFFIX = ".eval.jsonl"

Kind = Literal["options", "likelihood", "generation", "retrieval"]
"""What a task asks of a model: to rate options, to rate one text, to write, or to embed."""

Pooling = Literal["last", "mean", "prompt"]


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Base of what a line holds; its field `kind` names the type."""


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a part of a record."""


class Settings(Plain, frozen=True):
    """Tasks and how they are asked, apart from the model and its variants."""

    tasks: tuple[str, ...] = ()
    """As asked for: names of lm-eval's, YAML files, BEIR folders, text files of prompts; the demo's
    where there are none."""
    num_fewshot: int | None = None
    """Examples before each question; None leaves it to the task."""
    limit: int | None = None
    """Items of a task at most, the first ones."""
    batch_size: int = 8
    """Texts that are read together."""
    apply_chat_template: bool = False
    seed: int = 1234
    """Seed of random examples, lm-eval's own default."""
    pooling: Pooling = "last"
    """Embedding in retrieval: of the end token appended to the text, the mean over its tokens, or
    of the last token of a prompt that asks for one word."""
    instruction: str | None = None
    """Text before each query in retrieval."""
    max_tokens: int = 512
    """Tokens of a text that is embedded at most."""


class Metric(Plain, frozen=True):
    """Score of a task, by the name that lm-eval or BEIR has for it."""

    name: str
    filter: str = "none"
    """lm-eval's filter of the answers."""
    higher_is_better: bool = True
    mean: bool = True
    """Whether the score is the mean of the items' values; else only `End` has it."""

    @property
    def key(self) -> str:
        """Name and filter, as lm-eval's result files have them."""
        return f"{self.name},{self.filter}"


class Task(Plain, frozen=True):
    name: str
    kind: Kind
    items: Int
    """Number of items that are asked."""
    total: Int
    """Number of items that there are."""
    metrics: list[Metric]
    """Scores, the main one first; none for prompts, which have no right answer."""
    version: str
    digest: str
    """Hash of the configuration and the documents asked, by which a run that goes on knows it."""
    group: str | None = None
    """Group whose mean it is part of, such as mmlu."""
    weight_by_size: bool = True
    """Whether the group's mean is over items; else over tasks, whatever their number of items."""
    num_fewshot: Int = 0
    config: dict[str, Any] = {}
    """lm-eval's configuration, for its result files."""
    notes: list[str] = []


class Header(Record, tag="evaluation", frozen=True):
    version: int
    model: Model
    lanes: list[Lane]
    fingerprints: list[str]
    """Hash of each lane's weights, as `Model.fingerprint`; lanes that only drop have the
    baseline's."""
    options: Options
    """Options of model and variants, from which an item's session is opened."""
    settings: Settings
    tasks: list[Task]
    noise_floor: float
    """Largest change of a log probability, in nats, when texts are read in batches instead of
    alone: what is smaller may be rounding."""
    versions: dict[str, str]
    created: str
    """ISO 8601, UTC."""
    notes: list[str] = []


class Option(Plain, frozen=True):
    text: str
    tokens: list[Int]
    """Tokens of the continuation that was rated."""
    context: Int = 0
    """Index into the item's contexts."""
    continuation: str = ""
    """Text that was rated after the context: lm-eval sets a delimiter before an option."""


class Match(Plain, frozen=True):
    """Document found for a query."""

    id: str
    similarity: float | None
    """Cosine similarity of the embeddings."""
    relevance: Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
    """Relevance by the qrels; 0 where they do not name it."""


class Answer(Plain, frozen=True):
    """What one lane makes of an item."""

    scores: dict[str, Any] = {}
    """Values by `Metric.key`: a number, or what lm-eval aggregates (F1 takes pairs). None where the
    lane's logits or embeddings are no numbers, of which no answer is made."""
    option: Int | None = None
    """Index of the option of the highest log probability."""
    logprobs: list[float | None] = []
    """Log probability of each option, in nats, summed over its tokens."""
    greedy: list[bool] = []
    """Whether each option's tokens are the most probable ones."""
    text: str | None = None
    """Text generated, up to the stop sequence."""
    tokens: list[Int] = []
    """Tokens generated."""
    filtered: dict[str, str] = {}
    """What lm-eval's filters take of the text, by filter."""
    divergence: Int | None = None
    """First step whose token differs from the baseline's."""
    kl: float | None = None
    """Mean over the baseline's generated tokens of KL(p ‖ q) in nats, p the baseline's: local, as
    the lane reads the baseline's tokens."""
    matches: list[Match] = []
    """The ten documents of the highest similarity, best first."""
    cosine: float | None = None
    """Cosine similarity of the query's embedding to the baseline's."""


class Item(Record, frozen=True):
    """A question and what all lanes make of it."""

    task: str
    index: Int
    """Number of the document or query among those that are asked: 0, 1, 2, … in a task."""
    hash: str
    """Hash of the document (lm-eval's `doc_hash`)."""
    question: str
    """The question alone, without examples and chat template."""
    gold: str
    """The right answer as text, "" where there is none."""
    contexts: list[str]
    """Whole texts before the options or the generated text; several in tasks like Winogrande."""
    tokens: list[Int]
    """Tokens of the context as they were read: that of the right option, where there are several.
    `drift` is taken at the last one."""
    answers: list[Answer]
    """Per lane."""
    drift: list[Drift | None] = []
    """Per variant, at the last token of `tokens`, which all lanes share, at T = 1: local. Null
    entries, or none, where a task has no such token."""
    options: list[Option] = []
    gold_option: Int | None = None
    truncated: Int = 0
    """Tokens cut off: on the left, as the context of the model is shorter, or on the right of a
    query in retrieval, as `Settings.max_tokens` has it."""
    until: list[str] = []
    """Stop sequences of a generation."""
    max_new_tokens: Int | None = None
    doc: dict[str, Any] = {}
    """lm-eval's document, for its sample files, as the next field."""
    target: str = ""
    """lm-eval's `doc_to_target` as text: often the index of the right option."""


class End(Record, frozen=True):
    """All items of a task are there."""

    task: str
    scores: list[dict[str, float | None]]
    """Per lane, values of the metrics that are no means, by `Metric.key`."""


Line = Item | End
