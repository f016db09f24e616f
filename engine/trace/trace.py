"""A trace in memory: the header and the steps that stand."""

from .records import Header, Rewind, Step


class Trace:
    """What the screens draw.

    `steps` only ever grows; `rewind` puts a new list in its place. A reader on another thread
    that takes `steps` once sees one history, and tells a rewind by the list's identity.
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        self.steps: list[Step] = []

    def append(self, step: Step) -> None:
        if step.step != len(self.steps):
            raise ValueError(f"step {step.step} cannot follow {len(self.steps)} steps")
        self.steps.append(step)

    def rewind(self, to: int) -> None:
        """Keep the first `to` steps."""
        if not 0 <= to <= len(self.steps):
            raise ValueError(f"cannot rewind {len(self.steps)} steps to {to}")
        self.steps = self.steps[:to]

    def apply(self, event: Step | Rewind) -> None:
        if isinstance(event, Step):
            self.append(event)
        else:
            self.rewind(event.to)

    @property
    def lane_names(self) -> list[str]:
        return [lane.name for lane in self.header.lanes]

    def text(self, lane: int) -> str:
        """What the lane has said so far."""
        return "".join(token.text for step in self.steps if (token := step.lanes[lane]))


def differs(step: Step, lane: int) -> bool:
    """The lane's token is not the baseline's, or just one of the two has ended."""
    own, baseline = step.lanes[lane], step.lanes[0]
    if own is None or baseline is None:
        return own is not baseline
    return own.token != baseline.token


def is_tie(header: Header, step: Step) -> bool:
    """The baseline's first two tokens are so close that rounding alone could swap them."""
    baseline = step.lanes[0]
    return (
        baseline is not None
        and baseline.margin is not None
        and baseline.margin < header.noise_floor
    )


def first_divergence(steps: list[Step], lane: int) -> int | None:
    """The first step at which the lane's token differs from the baseline's."""
    return next((step.step for step in steps if differs(step, lane)), None)
