"""Commands of the palette, found by their nouns, keywords and sentences."""

import functools
import re
from collections.abc import Sequence

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from ..widgets.key_line import Key
from .inspector import Inspector
from .session_keys import SESSION_KEYS
from .sessions import SessionsScreen

THEME = Key(
    "",
    "app.change_theme",
    tooltip="Change the colours",
    noun="Theme",
    keywords="colors dark light contrast mono ansi appearance",
)

WORD = re.compile(r"[^\s,;:()]+")


class Commands(Provider):
    """Provider of the screen's keys as commands, and of those that have no key."""

    async def discover(self) -> Hits:
        for key in self._keys():
            yield DiscoveryHit(self._title(key), self._run(key), text=key.noun, help=key.tooltip)

    async def search(self, query: str) -> Hits:
        for key in self._keys():
            score = score_of(key, query)
            if score:
                title = self._title(key)
                yield Hit(score, title, self._run(key), text=key.noun, help=key.tooltip)

    def _keys(self) -> Sequence[Key]:
        if isinstance(self.screen, SessionsScreen):
            return [*SESSION_KEYS, THEME]
        if not isinstance(self.screen, Inspector):
            return [THEME]
        return [*(key for key in self.screen.keys if key.id not in self.screen.hidden_keys), THEME]

    def _title(self, key: Key) -> Content:
        display = self.app.get_key_display(key) if key.key else ""
        return Content.assemble(key.noun, (f"  {display}", "dim not bold"))

    def _run(self, key: Key) -> functools.partial[object]:
        return functools.partial(self.screen.run_action, key.action)


def score_of(key: Key, query: str) -> int:
    """Rank of a command among those that a query finds; 0 if it lacks one of the query's words.

    A noun counts more than a keyword, and that more than a word of the sentence; a whole word more
    than the beginning of one, and that more than letters inside one.
    """
    noun, *more_nouns = words_of(key.noun)
    fields = [[noun], more_nouns, words_of(key.keywords), words_of(key.tooltip)]
    scores = [_score_of_word(fields, word) for word in words_of(query)]
    return sum(scores) if all(scores) else 0


def words_of(text: str) -> list[str]:
    return [word.lower().strip(".") for word in WORD.findall(text)]


def _score_of_word(fields: Sequence[Sequence[str]], query: str) -> int:
    tests = (str.__eq__, str.startswith, str.__contains__)
    ranks = [
        (len(tests) - strictness) * 10 + len(fields) - place
        for place, words in enumerate(fields)
        for strictness, test in enumerate(tests)
        if any(test(word, query) for word in words)
    ]
    return max(ranks, default=0)
