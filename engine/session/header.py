"""The header of a session's trace, and what another session must share with it to go on."""

import datetime
import importlib.metadata

from ..decode.prepared_lanes import PreparedLanes
from ..errors import OptionError
from ..model.context_length import context_length
from ..model.fingerprint import weights_fingerprint
from ..model.loading import Loaded
from ..options import Options
from ..trace import records


def describe_model(loaded: Loaded) -> records.Model:
    """Describe a model for the header, before its weights are packed."""
    model = loaded.model
    config = model.config.get_text_config()
    return records.Model(
        name=loaded.name,
        family=model.config.model_type,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=", ".join(dict.fromkeys(str(p.device) for p in model.parameters())),
        context_length=context_length(model),
        fingerprint=weights_fingerprint(model),
    )


def make_header(
    model: records.Model,
    lanes: PreparedLanes,
    options: Options,
    prompt: records.Prompt,
    answers: records.Answers | None,
    notes: list[str],
    bandwidth: float,
    session: str,
) -> records.Header:
    """Build the header of a trace; `options` have the decoded prompt and context."""
    return records.Header(
        version=records.VERSION,
        model=model,
        lanes=lanes.records,
        prompt=prompt,
        sampling=records.Sampling(
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=options.seed,
            max_new_tokens=options.max_new_tokens,
            ignore_eos=options.ignore_eos,
        ),
        context=options.context,
        noise_floor=lanes.noise_floor,
        bandwidth=bandwidth,
        versions={
            package: importlib.metadata.version(package)
            for package in ("prunetui", "torch", "transformers")
        },
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        options=options,
        answers=answers,
        notes=[
            *lanes.notes,
            *lanes.notes_on_length(len(prompt.tokens) + options.max_new_tokens),
            *notes,
        ],
        session=session,
    )


def check_same_model(old: records.Model, new: records.Model) -> None:
    """Raise `UserError` if a trace's model differs; old traces have no fingerprint."""
    if old.fingerprint is None:
        same = (old.name, old.parameters, old.vocab_size) == (
            new.name,
            new.parameters,
            new.vocab_size,
        )
    else:
        same = old.fingerprint == new.fingerprint
    if not same:
        raise OptionError(
            f"the trace is of {old.name} ({old.parameters} parameters in {old.dtype}), and "
            f"{new.name} ({new.parameters} in {new.dtype}) has other weights; it cannot be resumed"
        )


def check_resumable(old: records.Header, new: records.Header) -> None:
    """Raise `UserError` if the lanes are not those that decoded the old trace."""
    if old.lanes != new.lanes:
        raise OptionError(
            "the recipes do not drop what they dropped in the trace; it cannot be resumed with "
            "this calibration text"
        )
