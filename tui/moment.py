"""What the panels are told to show."""

from dataclasses import dataclass

from ..engine.trace.records import Header, Step


@dataclass(frozen=True)
class View:
    """A trace at a cursor.

    `steps` is the trace's own list: it grows while it is shown, and another list stands for
    another history. `lane` is the selected one.
    """

    header: Header
    steps: list[Step]
    cursor: int
    """A step's number; -1 while there is none."""
    lane: int
    branch: str = ""
    """Which of the trace's branches it is, if there is more than one."""

    @property
    def step(self) -> Step | None:
        return self.steps[self.cursor] if self.cursor >= 0 else None
