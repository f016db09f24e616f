"""The loaded model, its variants, and the settings that all kinds of tasks share."""

from dataclasses import dataclass

from ..model.loading import Loaded
from ..options import Options
from ..progress import Progress
from ..results.records import Settings
from ..variants.builder import LaneModel


@dataclass(frozen=True)
class EvaluatedLanes:
    """Lanes of an evaluation; nothing is installed on their models."""

    loaded: Loaded
    models: list[LaneModel]
    """Baseline first."""
    options: Options
    """Those that model and variants were made with."""
    settings: Settings
    progress: Progress
