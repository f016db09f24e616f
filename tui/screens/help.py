"""Help: the keys, the marks and the measures."""

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Button, Static

from ...engine.trace.printable import visible
from ..views.alignment import DIFFERENT, TIE
from ..widgets.candidates import CHOSEN, FORCED
from ..widgets.drift_panel import CURSOR, LOCAL, NOT_FINITE
from ..widgets.status import NOTES, STOPS
from ..widgets.text_panel import DIVERGES, ENDS, SELECTED, TIES
from .dialog import Dialog
from .keys import PALETTE

MARKS = [
    (SELECTED, "the selected lane; its bars and its drift are shown"),
    (DIVERGES, "the lane's first token that is not the baseline's"),
    (TIES, "the same, but the baseline's two best logits are closer than the noise floor"),
    (DIFFERENT, "any token that is not the baseline's (views 1 and 5)"),
    (TIE, "the same, by such a tie"),
    (ENDS, "the lane ended here"),
    ("⏎", "a newline; other control characters show as ␀ … ␡ or <U+202E>"),
    (CHOSEN, "the token that the lane chose"),
    (FORCED, "the token that a person forced on it"),
    (STOPS, "playing stops where this holds"),
    (CURSOR, "the cursor's column in the charts"),
    (NOT_FINITE, "a value that is not a finite number"),
    ("% bw", "of the memory's bandwidth: a step's bytes of weights and caches over its time"),
]

MOUSE = [
    ("click", "on a token, on a column of steps: the cursor goes there; on a lane: selects it"),
    ("", "on a candidate: the tokens to force; on a key, above or in the last line: what it does"),
    ("wheel", "a step on, a step back; through the lens, the layers"),
]

MEASURES = [
    ("x, y", "the baseline's and the variant's vector; d = y − x"),
    ("h", "embedding: the final hidden state after the final norm"),
    ("z", "logits, z = W h"),
    ("p, q", "softmax(z/T) of the baseline and the variant; T = 1 when greedy"),
    ("cos", "cosine similarity of x and y in the space"),
    ("KL(p‖q)", "Σ p log(p/q), p baseline, in nats"),
    (LOCAL, "any of them on the baseline's tokens: what pruning does to this step alone"),
    ("KL(q‖p)", "Σ q log(q/p), in nats"),
    ("estimate", "h, z: orthogonal²/2 ≈ 1 − cos (Theorem 1)"),
    ("", "p: Var_r(dz)/(2T²) ≈ 1 − cos p, r = p²/|p|² (Theorem 2)"),
    ("", "KL: Var_p(dz)/(2T²) ≈ KL(p‖q), in nats (Theorem 3)"),
    ("parallel", "⟨d, x⟩ / |x|²"),
    ("orthogonal", "|d − parallel·x| / |x|"),
    ("centred z", "1 − cos z after each vector's mean is taken off"),
    ("lens", "a layer's output read by the head as if it were the last, with or without the norm"),
    ("", "a sublayer's 1 − cos and KL(before‖after) in nats: the stream, its z and its p"),
    ("", "before and after its output is added; z and p through the norm and the head"),
    ("Δp", "probability of the baseline's chosen token, variant minus baseline"),
    ("top-1", "whether both lanes' most probable token is the same"),
    ("", "He et al. 2026, arXiv 2603.24652"),
]

CONTEXTS = [
    ("free", "each lane reads its own tokens: drift has the history in it"),
    ("forced", "every lane reads the baseline's tokens: only this step's drift is left"),
    ("both", "free, and each variant has a second lane that reads the baseline's tokens: local"),
]


def _table(rows: Sequence[tuple[str, ...]]) -> Table:
    """Table of terms and meanings; a third item of a row is the action of a click on it."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", min_width=10, no_wrap=True)
    table.add_column()
    for term, meaning, *actions in rows:
        style = Style(meta={"@click": f"screen.do({actions[0]!r})"} if actions else {})
        table.add_row(Text(term, style), Text(meaning, style))
    return table


class HelpScreen(Dialog[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "close", "close", id="help-close"),
    ]

    def __init__(
        self,
        keys: Sequence[Binding],
        view: str,
        view_keys: Sequence[Binding],
        notes: Sequence[str],
    ) -> None:
        """`view_keys` are the chosen view's own; `notes` are the trace's."""
        super().__init__()
        self._notes = notes
        self._keys = keys
        self._view = view
        self._view_keys = view_keys

    def compose(self) -> ComposeResult:
        keys = self._rows([*self._keys, PALETTE])
        view_rows = [row[:2] for row in self._rows(self._view_keys)]
        view_sections = [(f"Keys of the view {self._view}", view_rows)] if view_rows else []
        notes = [(NOTES, visible(note)) for note in self._notes]
        note_sections = [("Notes on the numbers", notes)] if notes else []
        with VerticalScroll(classes="dialog"):
            for title, rows in (
                *note_sections,
                *view_sections,
                ("Keys", keys),
                ("Mouse", MOUSE),
                ("Marks", MARKS),
                ("Measures", MEASURES),
                ("Contexts", CONTEXTS),
            ):
                yield Static(title, classes="dialog-title")
                yield Static(_table(rows))
            with Horizontal(classes="dialog-buttons"):
                yield Button("Close  esc", compact=True)

    def _rows(self, keys: Sequence[Binding]) -> list[tuple[str, str, str]]:
        # The key line shows the first view's key for all of them.
        return [
            (
                key.key if key.key.isdigit() else self.app.get_key_display(key),
                key.tooltip or key.description,
                key.action,
            )
            for key in keys
        ]

    def action_do(self, action: str) -> None:
        """Run a clicked row's action on the screen below."""
        below = self.app.screen_stack[-2]
        self.dismiss()
        self.app.call_later(below.run_action, action)

    @on(Button.Pressed)
    def action_close(self) -> None:
        self.dismiss()
