"""Contents of an evaluation file in memory."""

from dataclasses import dataclass, field

from .records import End, Header, Item, Task


@dataclass
class Results:
    """Header and items of an evaluation, whole or still running."""

    header: Header
    items: dict[str, list[Item]] = field(default_factory=dict)
    """Items by task, in the order of the file, which is that of their index."""
    ends: dict[str, End] = field(default_factory=dict)
    """Ends by task, for the tasks that are complete."""

    def task(self, name: str) -> Task:
        return next(task for task in self.header.tasks if task.name == name)

    @property
    def complete(self) -> bool:
        """Whether every task has ended."""
        return len(self.ends) == len(self.header.tasks)
