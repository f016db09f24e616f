"""The list of keys of the variant editor."""

from textual.binding import Binding

KEYS = [
    Binding("space", "gate", "gate", tooltip="Open or close the gate under the cursor", id="gate"),
    Binding("tab", "app.focus_next", "part", key_display="⇥", id="next-part"),
    Binding("n", "new", "new", id="new-variant"),
    Binding("d,delete", "remove", "remove", key_display="d", id="remove-variant"),
    Binding("ctrl+r,enter", "apply", "apply", key_display="^r", id="apply-variants"),
    Binding("r", "rename", "rename", id="rename-variant"),
    Binding("shift+up", "carry(-1)", "up", key_display="⇧↑", id="variant-up"),
    Binding("shift+down", "carry(1)", "down", key_display="⇧↓", id="variant-down"),
    Binding("a", "least('attn')", "attention", show=False, id="least-attention"),
    Binding("m", "least('mlp')", "MLP", show=False, id="least-mlp"),
    Binding("j", "least('joint')", "joint", show=False, id="least-joint"),
    Binding("b", "least('block')", "blocks", show=False, id="least-blocks"),
    Binding("ctrl+z", "undo", "undo", key_display="^z", id="undo-variants"),
    Binding("escape", "leave", "leave", id="leave-variants"),
]
