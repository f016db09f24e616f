"""Input events, dispatched one at a time to the screen that those before have led to."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from textual import events
from textual.app import App
from textual.message_pump import MessagePump

ROUNDS = 3
"""Rounds of messages that one key may cause: a binding, the message that the binding posts, and the
screen that this one opens, which is then ready for the next key."""

MOST_SECONDS = 0.5
"""Time after which the next event does not wait for the last any longer."""


class TypeAhead:
    """Queue of input events, each dispatched once the widgets have processed the one before.

    A terminal sends what was typed while the line was slow in one burst, and a paste may come as
    keys. Without a queue they would all go to the screen that is there at the first of them, though
    it opens a dialog for which the rest was meant, or to a dialog that has been left.
    """

    def __init__(self, app: App[None], dispatch: Callable[[events.Event], Awaitable[None]]) -> None:
        self._app = app
        self._dispatch = dispatch
        self._waiting: deque[events.Event] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> bool:
        """Whether an event is still to be dispatched or processed."""
        return self._task is not None and not self._task.done()

    def put(self, event: events.Event) -> None:
        self._waiting.append(event)
        if not self.pending:
            self._task = asyncio.create_task(self._dispatch_all())

    async def _dispatch_all(self) -> None:
        # What was typed after the key that quits opens no dialog on the way out.
        while self._waiting and self._app.return_code is None:
            event = self._waiting.popleft()
            await self._dispatch(event)
            if not isinstance(event, events.MouseMove) and self._app.return_code is None:
                await self._settle()

    async def _settle(self) -> None:
        """Wait until the focused widget and all above it have processed their messages."""
        try:
            async with asyncio.timeout(MOST_SECONDS):
                for _ in range(ROUNDS):
                    # Events bubble: each may have got something from the one below.
                    for pump in (self._app.focused or self._app.screen).ancestors_with_self:
                        await _processed(pump)
        except TimeoutError:
            pass


async def _processed(pump: MessagePump) -> None:
    """Wait until the pump has processed what is in its queue now; no longer if it is closing."""
    done = asyncio.Event()
    if pump.call_later(done.set):
        await done.wait()
