"""What the front end uses of a session, as a protocol that needs no torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Unpack

from ..engine.options import Options
from ..engine.progress import Progress
from ..engine.session.changes import RestartChanges
from ..engine.trace.blame import BlamedTokens, Causes
from ..engine.trace.trace import Trace

if TYPE_CHECKING:
    from ..engine.variants.pruning.ranking import Similarity


class SessionPort(Protocol):
    """Session that decodes; `prunetui.engine.session.session.Session` documents each member.

    Methods raise `UserError` where a user can mend what is wrong.
    """

    @property
    def trace(self) -> Trace: ...

    @property
    def finished(self) -> str | None: ...

    @property
    def recording(self) -> Path | None: ...

    @property
    def recording_error(self) -> str | None: ...

    @property
    def left_out(self) -> list[str]: ...

    def step(self, *, ahead: bool = False) -> object: ...

    def read(self, number: int) -> None: ...

    def blame(self, number: int, lane: int, tokens: BlamedTokens, what: Causes) -> object: ...

    def force(self, at: int, tokens: dict[int, int]) -> object: ...

    def switch(self, branch: int) -> None: ...

    def restart(self, **changes: Unpack[RestartChanges]) -> None: ...

    def set_variants(self, recipes: Sequence[str]) -> None: ...

    def importance(self) -> "Similarity": ...

    def end(self) -> None: ...


OpenSession = Callable[[Options, Path | None, Progress], SessionPort]
"""Opens a session that records to a new file, if one is named, and reports how far loading is."""
