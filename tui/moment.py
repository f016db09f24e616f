"""A trace at a cursor: what the panels draw."""

from dataclasses import dataclass

from ..engine.trace.records import Header, Step


@dataclass(frozen=True)
class Moment:
    """A trace at a cursor.

    `steps` is the trace's own list: it grows while it is shown, and another list is another
    history.
    """

    header: Header
    steps: list[Step]
    cursor: int
    """Index of the step under the cursor; -1 while there is none."""
    lane: int
    """Index of the selected lane."""
    branch: str = ""
    """Label of the trace's branch; empty if it has only one."""
    preview: Step | None = None
    """Step 0 as it would be decoded now."""

    @property
    def step(self) -> Step | None:
        """Step under the cursor."""
        return self.steps[self.cursor] if self.cursor >= 0 else None

    @property
    def step_or_preview(self) -> Step | None:
        """Step under the cursor; before any is decoded, the preview."""
        return self.step if self.steps else self.preview
