"""What a reader of the numbers must know of a session, for the HTML and Markdown reports."""

from ..figures import MISSING, share
from ..records import Lane, Model, Sampling
from ..trace import Trace

CONTEXTS = {
    "free": "each lane reads its own tokens",
    "forced": "every lane reads the baseline's tokens",
    "both": "each lane reads its own tokens; local: the baseline's",
}

LANE_COLUMNS = (
    "lane",
    "recipe",
    "attention dropped in layers",
    "MLP dropped in layers",
    "weights zero",
)


def session_facts(trace: Trace) -> dict[str, str]:
    """Facts by their name."""
    header = trace.header
    return {
        **model_facts(header.model),
        "decoding": decoding(header.sampling),
        "context": f"{header.context}: {CONTEXTS[header.context]}",
        "steps": f"{len(trace.steps)}, of at most {header.sampling.max_new_tokens}",
        "noise floor": f"{header.noise_floor:.2g}: the most that a logit moves when the baseline "
        "is a row of a batch instead of alone",
        "recorded": header.created,
        "versions": versions_text(header.versions),
    }


def model_facts(model: Model) -> dict[str, str]:
    """Facts of the model by their name."""
    return {
        "model": f"{model.name}, {model.family}, {model.layers} layers, "
        f"{model.parameters / 1e6:.4g} M parameters",
        "dtype and device": f"{model.dtype} on {model.device}",
    }


def decoding(sampling: Sampling) -> str:
    """How tokens are chosen, and T in p = softmax(z/T)."""
    kind = "sampled at" if sampling.temperature else "greedy, measured at"
    return (
        f"{kind} T = {sampling.measured_temperature:g}, top-k {sampling.top_k or 'off'}, "
        f"top-p {sampling.top_p:g}, seed {sampling.seed}"
    )


def lane_cells(lane: Lane) -> list[str]:
    """Cells in the order of `LANE_COLUMNS`, after the name."""
    zeros = "–" if lane.sparsity is None else share(lane.sparsity)
    return [
        lane.recipe or "the model as it is",
        _layers(lane.dropped_attention),
        _layers(lane.dropped_mlp),
        f"{zeros} ({lane.pattern})" if lane.pattern else zeros,
    ]


def _layers(layers: list[int]) -> str:
    return ", ".join(map(str, layers)) or "–"


def versions_text(versions: dict[str, str]) -> str:
    """Names and versions of what computed the numbers."""
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or MISSING
