"""The list of views, in the order of their keys from 1 on."""

from .alignment import AlignmentView
from .base import InspectorView
from .drift import DriftView
from .layers import LayersView
from .statistics import StatisticsView
from .subspace import SubspaceView
from .theory import TheoryView

VIEWS: list[tuple[str, type[InspectorView], str]] = [
    ("drift-view", DriftView, "Drift over the steps, large"),
    ("layers", LayersView, "In which layer the selected lane leaves the baseline"),
    ("theory", TheoryView, "Measured drift against its second-order estimates"),
    ("subspace", SubspaceView, "A few answers among themselves, and the whole vocabulary"),
    ("alignment", AlignmentView, "The lanes' tokens, a column a step"),
    ("statistics", StatisticsView, "KLD, Δp, perplexity, repetition"),
]
"""Widget id, class and help sentence of each view."""
