"""The header of a session's trace, and what another session must share with it to go on."""

import datetime
import importlib.metadata

from ..decode.prepared_lanes import PreparedLanes
from ..errors import OptionError
from ..options import Options
from ..trace import records


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


def check_resumable(old: records.Header, new: records.Header) -> None:
    """Raise `UserError` if the lanes are not those that decoded the old trace."""
    if old.lanes != new.lanes:
        raise OptionError(
            "the recipes do not drop what they dropped in the trace; it cannot be resumed with "
            "this calibration text"
        )
