"""Comparison of a session's lanes with those of the evaluation whose items it opens."""

from collections.abc import Sequence

from ..model.description import check_same_model, describe_model
from ..model.fingerprint import weights_fingerprint
from ..model.loading import Loaded
from ..results.records import Header
from ..variants.builder import LaneModel, lane_records


def check_evaluated(header: Header, loaded: Loaded, lanes: Sequence[LaneModel]) -> list[str]:
    """Return a sentence for each lane that is not what was evaluated under its name.

    Raises `UserError` if the model itself is another: every number would be.
    """
    check_same_model(header.model, describe_model(loaded))
    evaluated = {
        lane.name: (lane, fingerprint)
        for lane, fingerprint in zip(header.lanes, header.fingerprints, strict=True)
    }
    sentences = []
    for lane, model in zip(lane_records(lanes), lanes, strict=True):
        before, fingerprint = evaluated[lane.name]
        dropped = (lane.dropped_attention, lane.dropped_mlp)
        if dropped != (before.dropped_attention, before.dropped_mlp):
            what = "drops other sublayers"
        elif fingerprint != weights_fingerprint(model.group.model):
            what = "has other weights"
        else:
            continue
        sentences.append(f"{lane.name} {what} than in the evaluation: its numbers are others.")
    return sentences
