"""A trace as a table: a row per step and running lane, a column per number."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from ..records import AnswerNumbers, Drift, Int, LaneLens, Step, Token, Transition
from ..trace import Trace

Kind = Literal["int", "float", "bool", "text", "ints", "floats", "texts"]
Cell = int | float | bool | str | list[int] | list[float | None] | list[str] | None

_KINDS: dict[object, Kind] = {
    Int: "int",
    float | None: "float",
    bool: "bool",
    str: "text",
    list[Int]: "ints",
    list[float | None]: "floats",
    list[str]: "texts",
}
_TOKEN: dict[str, Kind] = {f.name: _KINDS[f.type] for f in msgspec.structs.fields(Token)}
DRIFT_COLUMNS: dict[str, Kind] = {f.name: _KINDS[f.type] for f in msgspec.structs.fields(Drift)}
_LENS: dict[str, Kind] = {
    f.name: _KINDS[f.type] for f in msgspec.structs.fields(LaneLens) if f.name != "transitions"
}
_TRANSITION = [f.name for f in msgspec.structs.fields(Transition)]
_LENS_COLUMNS: dict[str, Kind] = {
    **_LENS,
    **{f"transition_{name}": "floats" for name in _TRANSITION},
}

COLUMNS: dict[str, Kind] = {
    "step": "int",
    "lane": "int",
    "name": "text",
    **_TOKEN,
    **DRIFT_COLUMNS,
    **{f"local_{name}": kind for name, kind in DRIFT_COLUMNS.items()},
    "seconds": "float",
    "read": "int",
    "memory": "int",
    "layers": "floats",
    "local_layers": "floats",
    "candidates": "ints",
    "candidate_texts": "texts",
    "candidate_probs": "floats",
    "answer_z": "floats",
    "answer_logprob": "floats",
    "local_answer_z": "floats",
    "local_answer_logprob": "floats",
    **{f"lens_{name}": kind for name, kind in _LENS_COLUMNS.items()},
    **{f"local_lens_{name}": kind for name, kind in _LENS_COLUMNS.items()},
}
"""Columns, by names as in `records`, in the order of a row's cells.

Fields of a `Drift` are on the lane's own tokens, with `local_` on the baseline's (context both),
and None for the baseline. `seconds`, `read` and `memory` are the step's, of all lanes together.
`layers` has a cosine after each sublayer; `candidates` are the step's tokens, and
`candidate_probs` the lane's probabilities of them; `answer_` lists follow the header's answers.
Steps read through the logit lens have `lens_` lists: an entry before attention 0 and one after
each sublayer, or for a transition one per sublayer.
"""


def rows(trace: Trace) -> Iterator[list[Cell]]:
    """Rows of the open branch's steps, with cells in the order of `COLUMNS`."""
    for step in trace.steps:
        for lane, token in enumerate(step.lanes):
            if token is not None:
                yield _row(step, lane, token, trace.header.lanes[lane].name)


def _row(step: Step, lane: int, token: Token, name: str) -> list[Cell]:
    drift, local = step.drift_of(lane), step.local_of(lane)
    answer = step.answers[lane] if step.answers else None
    lens = step.lens.lanes[lane] if step.lens else None
    local_lens = step.lens.local_of(lane) if step.lens else None
    return [
        step.step,
        lane,
        name,
        *(getattr(token, key) for key in _TOKEN),
        *(getattr(drift, key, None) for key in DRIFT_COLUMNS),
        *(getattr(local, key, None) for key in DRIFT_COLUMNS),
        step.seconds,
        step.read,
        step.memory,
        step.layers_of(lane),
        step.local_layers_of(lane),
        step.candidates.tokens,
        step.candidates.texts,
        step.candidates.probs[lane],
        *_answers(answer),
        *_answers(step.local_answers_of(lane)),
        *_lens(lens),
        *_lens(local_lens),
    ]


def _answers(answer: AnswerNumbers | None) -> tuple[Cell, Cell]:
    return (answer.z, answer.logprob) if answer else (None, None)


def _lens(lens: LaneLens | None) -> list[Cell]:
    if lens is None:
        return [None] * len(_LENS_COLUMNS)
    return [
        *(getattr(lens, key) for key in _LENS),
        *([getattr(transition, key) for transition in lens.transitions] for key in _TRANSITION),
    ]
