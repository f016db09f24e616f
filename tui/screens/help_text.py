"""What the help says of the mouse, marks, measures, contexts and words: terms with meanings.

A term may have several rows; it is shown in the first of them.
"""

from collections.abc import Sequence

from ...engine.trace.analysis.collapse import COLLAPSED
from ..views.alignment import DIFFERENT, TIE
from ..widgets.candidates import CHOSEN, FORCED
from ..widgets.drift_panel import BELOW, CURSOR, LOCAL, NOT_FINITE
from ..widgets.status import STOPS
from ..widgets.text_panel import DIVERGES, ENDS, SELECTED, TIES

MARKS = [
    (SELECTED, "the selected lane; its bars and its drift are shown"),
    (DIVERGES, "the lane's first token that is not the baseline's"),
    (TIES, "the same, but the baseline's two best logits are closer than the noise floor"),
    (DIFFERENT, "any token that is not the baseline's (views 1 and 5)"),
    (TIE, "the same, by such a tie"),
    (ENDS, "the lane ended here"),
    ("⏎", "a newline; other control characters show as ␀ … ␡ or <U+202E>"),
    (CHOSEN, "the token that the lane chose"),
    (FORCED, "the token that the user forced on it"),
    (STOPS, "playing stops where this holds"),
    (CURSOR, "the cursor's column in the charts"),
    (NOT_FINITE, "a value that is not a finite number"),
    (BELOW, "in a chart on a log scale: 0, or below the scale"),
    ("≤, ≥", "before a chart's bound: values beyond it are drawn there"),
    ("% bw", "of the memory's bandwidth: a step's bytes of weights and caches over its time"),
]

MOUSE = [
    ("click", "on a token, on a column of steps: the cursor goes there; on a lane: selects it"),
    (
        "click",
        "on a candidate: the tokens to force; on a key, here or in the last line: its action",
    ),
    ("wheel", "a step on, a step back; through the lens, the layers"),
]

MEASURES = [
    ("x, y", "the baseline's and the variant's vector; d = y − x"),
    ("h", "embedding: the final hidden state after the final norm"),
    ("z", "logits, z = W h"),
    ("p, q", "softmax(z/T) of the baseline and the variant; T = 1 when greedy"),
    ("1 − cos", "cos: cosine similarity of x and y in the space"),
    ("KL(p‖q)", "Σ p log(p/q), p baseline, in nats"),
    (LOCAL, "any of them on the baseline's tokens: what pruning does to this step alone"),
    ("KL(q‖p)", "Σ q log(q/p), in nats"),
    ("estimate", "h, z: orthogonal²/2 ≈ 1 − cos (Theorem 1)"),
    ("estimate", "p: Var_r(dz)/(2T²) ≈ 1 − cos p, r = p²/|p|² (Theorem 2)"),
    ("estimate", "KL: Var_p(dz)/(2T²) ≈ KL(p‖q), in nats (Theorem 3)"),
    ("parallel", "⟨d, x⟩ / |x|²"),
    ("orthogonal", "|d − parallel·x| / |x|"),
    ("centred z", "1 − cos z after each vector's mean is taken off"),
    ("lens", "a layer's output read by the head as if it were the last, with or without the norm"),
    ("lens", "a sublayer's 1 − cos and KL(before‖after) in nats: the stream, its z and its p"),
    ("lens", "before and after its output is added; z and p through the norm and the head"),
    ("Δp", "probability of the baseline's chosen token, variant minus baseline"),
    ("top-1", "whether both lanes' most probable token is the same"),
    ("source", "He et al. 2026, arXiv 2603.24652"),
]

CONTEXTS = [
    ("free", "each lane reads its own tokens: drift has the history in it"),
    ("forced", "every lane reads the baseline's tokens: only this step's drift is left"),
    ("both", "free, and each variant has a second lane that reads the baseline's tokens: local"),
]

WORDS = [
    ("baseline", "the unpruned model; lane 0"),
    ("variant", "a pruned form of it, made by a recipe such as drop:attn=8"),
    ("lane", "one stream of tokens: the baseline's or a variant's"),
    ("row", "a place in the batch of a forward pass; in context both a variant has two"),
    ("sublayer", "the attention or the MLP of one decoder layer"),
    ("drop, gate", "a closed gate keeps a sublayer's output from the residual stream"),
    ("control", "a variant that is the baseline again; its drift is rounding alone"),
    ("step", "one token in every lane"),
    ("branch", "the steps from a forced token on; branches share the steps before it"),
    ("breakpoint", "a condition at which playing stops: kl > 5"),
    ("candidates", "every lane's most probable tokens, with every lane's probability of each"),
    ("answers", "a few tokens among which an answer is chosen (view 4)"),
    ("margin", "the highest logit less the second highest"),
    ("entropy", "of a lane's own p, in nats"),
    ("collapse", f"of a text that ends in repetition: {COLLAPSED}"),
    ("distinct-2", "different 2-grams over tokens; zlib ratio: bytes of a text over compressed"),
    ("noise floor", "the most that a logit moves by rounding in a batch"),
    ("residual stream", "the sum that every sublayer adds its output to"),
    ("trace", "the file of all that a session showed, for replay, --resume and export"),
]

Table = tuple[str, Sequence[tuple[str, str]]]
"""Title, and terms with their meanings."""

INSPECTOR_TABLES: list[Table] = [
    ("Mouse", MOUSE),
    ("Marks", MARKS),
    ("Measures", MEASURES),
    ("Contexts", CONTEXTS),
    ("Words", WORDS),
]
