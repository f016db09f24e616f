"""A session of an evaluation's item has its model, and says which of its lanes are others."""

from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session

from ..support.models import save_model_directory
from ..support.results import make_header


def test_a_session_of_another_model_is_refused_and_other_lanes_are_named(tmp_path: Path) -> None:
    options = Options(
        model=str(save_model_directory(tmp_path / "one")),
        prompt="Say",
        raw=True,
        variants=("drop:attn=[1]", "magnitude:0.5"),
        max_new_tokens=4,
    )
    first = open_session(options, None, lambda *_: None)
    model, lanes = first.trace.header.model, first.trace.header.lanes
    first.close()
    assert model.fingerprint is not None
    header = msgspec.structs.replace(
        make_header(), model=model, lanes=lanes, fingerprints=[model.fingerprint] * 3
    )

    def opened(options: Options, **changes: object) -> Session:
        evaluation = msgspec.structs.replace(header, **changes)
        session = open_session(options, None, lambda *_: None, evaluation=evaluation)
        session.close()
        return session

    # The weights of the sparsified lane are not the baseline's.
    ending = "than in the evaluation: its numbers are others."
    other_weights = f"magnitude:0.5 has other weights {ending}"
    assert opened(options).left_out == [other_weights]
    moved = msgspec.structs.replace(lanes[1], dropped_attention=[0])
    assert opened(options, lanes=[lanes[0], moved, lanes[2]]).left_out == [
        f"drop:attn=[1] drops other sublayers {ending}",
        other_weights,
    ]
    alone = msgspec.structs.replace(options, variants=("drop:attn=[1]",))
    assert opened(alone).left_out == []
    save_model_directory(tmp_path / "two", seed=1)
    other = msgspec.structs.replace(alone, model=str(tmp_path / "two"))
    with pytest.raises(UserError, match=r"the file is of one .* and two .* has other weights"):
        opened(other)
