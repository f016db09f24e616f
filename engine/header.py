"""The header of a session's trace, and what another session must share with it to go on."""

import datetime
import importlib.metadata

from .errors import UserError
from .lanes import Lanes
from .loading import Loaded
from .options import Options
from .prompts import ReadPrompt, context_length
from .trace import records


def make_header(
    loaded: Loaded,
    parameters: int,
    lanes: Lanes,
    options: Options,
    prompt: ReadPrompt,
    answers: records.Answers | None,
    bandwidth: float,
) -> records.Header:
    """`parameters` of the model while its weights are plain; `options` with the prompt and context
    that are decoded."""
    model = loaded.model
    config = model.config.get_text_config()
    return records.Header(
        version=records.VERSION,
        model=records.Model(
            name=loaded.name,
            family=model.config.model_type,
            layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            vocab_size=config.vocab_size,
            parameters=parameters,
            dtype=str(model.dtype).removeprefix("torch."),
            device=", ".join(dict.fromkeys(str(p.device) for p in model.parameters())),
            context_length=context_length(model),
        ),
        lanes=lanes.records,
        prompt=prompt.record,
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
            *prompt.notes,
        ],
    )


def check_resumable(old: records.Header, new: records.Header) -> None:
    """Raises `UserError` if what decodes now would not go on with what was decoded then."""
    same_model = (old.model.name, old.model.parameters, old.model.vocab_size) == (
        new.model.name,
        new.model.parameters,
        new.model.vocab_size,
    )
    if not same_model:
        raise UserError(
            f"the trace is of {old.model.name} ({old.model.parameters} parameters), and this is "
            f"{new.model.name} ({new.model.parameters}); it cannot be resumed"
        )
    if old.lanes != new.lanes:
        raise UserError(
            "the recipes do not drop what they dropped in the trace; it cannot be resumed with "
            "this calibration text"
        )
