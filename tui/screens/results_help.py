"""What the help says of the screens of an evaluation: terms with meanings."""

from ...engine.results.table import MARK
from ...engine.trace.analysis.collapse import COLLAPSED
from ..widgets.candidates import CHOSEN
from ..widgets.item_list import BETTER, NEAR_TIE, OTHER, WORSE
from ..widgets.results_grid import TICK
from ..widgets.text_panel import DIVERGES
from .help_text import Table

RESULTS_TABLES: list[Table] = [
    (
        "Mouse",
        [
            ("click", "on a cell or an item: selects it; again: opens it"),
            ("wheel", "a row down, a row up"),
        ],
    ),
    (
        "Marks",
        [
            (WORSE, "a lower score than the baseline's; of right and wrong: right → wrong"),
            (BETTER, "a higher score than the baseline's: wrong → right"),
            (OTHER, "another answer than the baseline's, of the same score"),
            (MARK, "a difference with p < .05: exact McNemar, or sign-flip permutation"),
            (TICK, "in a bar: where the baseline's ends"),
            (NEAR_TIE, "the best two options are within the noise floor: rounding may decide"),
            (CHOSEN, "the option that the lane chose"),
            (DIVERGES, "where a generated text differs from the baseline's for the first time"),
        ],
    ),
    (
        "Measures",
        [
            ("score", "the task's main metric ± its standard error"),
            ("Δ", "score less the baseline's on the same items; 95 % by a paired bootstrap"),
            ("p, q", "softmax(z) of the baseline and of the lane, T = 1"),
            ("KL(p‖q)", "Σ p log(p/q), p baseline, in nats, at the answering position: local"),
            ("KL opt", "the same among the options: softmax of their log probabilities"),
            ("answering position", "the last token before the answer, which all lanes share"),
            ("cos h, z, p", "cosine similarity to the baseline: embedding, logits, probabilities"),
            ("margin", "log probability of the baseline's best option less its second, in nats"),
            ("agreement", "share of items with the baseline's answer, right or wrong"),
            (
                "log p, log q",
                "log probability of the text in the baseline and in the lane, in nats",
            ),
            (f"{DIVERGES} step", "the first generated token that is not the baseline's"),
            (
                "collapse",
                f"the step at which the repetition begins that a text ends in: {COLLAPSED}",
            ),
            ("both", "a text that ends in repetition, but not so much more than the baseline's"),
            ("noise floor", "the most that a log probability moves by reading in batches"),
        ],
    ),
]
