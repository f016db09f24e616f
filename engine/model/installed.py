"""The life cycle of what is installed on a model: built without effect, installed, removed."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

from torch.utils.hooks import RemovableHandle


class Installed(ABC):
    """Base of what changes a model while it is installed, also as a context manager.

    Building one has no effect. `install` and `remove` may be called again.
    """

    @abstractmethod
    def install(self) -> None: ...

    @abstractmethod
    def remove(self) -> None: ...

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class InstalledHooks(Installed):
    """Base of what is installed as hooks on modules; hooks installed later run later."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    @abstractmethod
    def _register(self) -> Iterable[RemovableHandle]:
        """Register the hooks one by one, so that those before a failure are removed."""

    def install(self) -> None:
        if self._handles:
            return
        try:
            for handle in self._register():
                self._handles.append(handle)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()
