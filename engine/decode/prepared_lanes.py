"""The lanes of a session ready to decode: models prepared, lockstep built and proven."""

import logging
from collections import Counter
from collections.abc import Callable

from ..cpu.backend import backend_for
from ..foreign import foreign_code, message
from ..model.attention import GroupedAttention
from ..model.dropped import Dropped
from ..model.rope import ChangingRope
from ..model.weight_group import WeightGroup
from ..options import Context
from ..out_of_memory import out_of_memory, roll_back
from ..progress import Progress
from ..variants.builder import LaneModel, lane_records
from .bandwidth import weight_bytes
from .lockstep import Lockstep
from .noise_floor import noise_floor
from .proof import Proof, prove
from .static_steps import supports_static_steps

log = logging.getLogger(__name__)

Rows = list[tuple[WeightGroup, Dropped]]
"""Weights and dropped sublayers of each row."""


class PreparedLanes:
    """The baseline and its variants, installed on their models until `remove`.

    After `remove` the models are as they were loaded, so that importance can be measured and
    weights pruned; `install` goes on with the same caches.
    """

    def __init__(
        self,
        models: list[LaneModel],
        context: Context,
        prompt: list[int],
        progress: Progress,
        *,
        graphs: bool = True,
    ) -> None:
        """Install the lanes; the noise floor is measured on `prompt`, token ids; with `graphs` a
        step on a GPU is one CUDA graph.

        Raises `UserError` for a model that cannot be decoded.
        """
        self.models = models
        self._prompt = prompt
        self._progress = progress
        self._graphs = graphs
        self.records = lane_records(models)
        depths = [len(lane.group.anatomy.layers) for lane in models]
        self.same_depth = [depth == depths[0] for depth in depths]
        """For each lane, whether its model is as deep as the baseline's."""
        self._row_counts = Counter(lane.group.model for lane in self._rows(context))
        model = models[0].group.model
        backend = backend_for(model.device, model.dtype)
        self._prepared = (
            backend.prepare(self._row_counts) if backend else GroupedAttention(self._row_counts)
        )
        self._prepared.install()
        with roll_back(self._prepared.remove):
            self.weight_bytes = weight_bytes([*self._row_counts])
            """Bytes of weights that a step reads."""
            self._build_lockstep(context)

    def set_context(self, context: Context) -> Callable[[], None]:
        """Rebuild the lockstep if the row count changes; return a function that puts the one before
        back, with its caches."""
        if len(self._rows(context)) == self.lockstep.row_count:
            return lambda: None
        before = self.lockstep, self.noise_floor, self.notes
        self.lockstep.remove()
        with roll_back(self.lockstep.install):
            self._build_lockstep(context)

        def put_back() -> None:
            self.lockstep.remove()
            self.lockstep, self.noise_floor, self.notes = before
            self.lockstep.install()

        return put_back

    def notes_on_length(self, positions: int) -> list[str]:
        """Notes on models whose rotary angles change within so many positions, a sentence each."""
        notes: dict[str, None] = {}
        for lane in self.models:
            rope = ChangingRope(lane.group.model)
            if rope.limit is not None and positions > rope.limit and not rope.rereads:
                notes[
                    f"{lane.group.name}'s rotary angles change after {rope.limit} tokens, which "
                    "the prompt and --max-new-tokens can reach: keys in the cache keep those of "
                    "the length at which they were read, as with generate of transformers."
                ] = None
        return [*notes]

    def install(self) -> None:
        self._prepared.install()
        self.lockstep.install()

    def remove(self) -> None:
        self.lockstep.remove()
        self._prepared.remove()

    def _build_lockstep(self, context: Context) -> None:
        """Build, prove and install the lockstep, and measure the noise floor with its number of
        rows."""
        rows = [(lane.group, lane.dropped) for lane in self._rows(context)]
        baseline = self.models[0].group
        family = baseline.model.config.model_type
        # At least two rows: a lane of another weight group is a batch of its own.
        row_count = max(2, sum(group is baseline for group, _ in rows))
        with foreign_code(f"this {family} model does not read one token after another"):
            self._progress("proving the step against transformers", None)
            lockstep, notes = self._proven(rows)
            self._progress("measuring the noise floor", None)
            alone, batch = (
                Lockstep(
                    [(baseline, Dropped())] * count,
                    static=lockstep.static,
                    reread=lockstep.reread,
                )
                for count in (1, row_count)
            )
            floor = noise_floor(
                alone,
                batch,
                self._prompt,
                lambda done: self._progress("measuring the noise floor", done),
            )
        lockstep.install()
        self.noise_floor, self.lockstep = floor, lockstep
        self.notes = [*dict.fromkeys([note for group, _ in rows for note in group.notes] + notes)]
        """Notes on the models for readers of the numbers, a sentence each."""

    def _proven(self, rows: Rows) -> tuple[Lockstep, list[str]]:
        """A lockstep that is proven and not installed, and notes on how it decodes."""
        notes = []
        if supports_static_steps([group.model for group, _ in rows]):
            lockstep = Lockstep(rows, static=True, graphs=self._graphs)
            refusal, proof = _prove_static(lockstep, rows)
            if proof is not None:
                return lockstep, proof.notes
            notes.append(
                f"A step of {rows[0][0].name} cannot run as one CUDA graph ({refusal}); its "
                "operations are launched one by one, which is slower."
            )
        lockstep = Lockstep(rows)
        proof = _prove_installed(lockstep, rows)
        notes += proof.notes
        if proof.reread:
            lockstep = Lockstep(rows, reread=proof.reread)
            notes += _prove_installed(lockstep, rows).notes
        return lockstep, notes

    def _rows(self, context: Context) -> list[LaneModel]:
        """The lane of each row; in context both, each variant has a second row after all lanes."""
        return self.models + (self.models[1:] if context == "both" else [])


def _prove_static(lockstep: Lockstep, rows: Rows) -> tuple[str, Proof | None]:
    """The proof of static steps; None, with the reason before it, where they are not to be used."""
    try:
        proof = _prove_installed(lockstep, rows)
    except Exception as error:
        if out_of_memory(error):
            raise
        log.warning("no static steps", exc_info=True)
        return message(error), None
    if lockstep.refusal:
        return lockstep.refusal, None
    if proof.reread:
        return "it then gives other logits than transformers", None
    return "", proof


def _prove_installed(lockstep: Lockstep, rows: Rows) -> Proof:
    lockstep.install()
    try:
        return prove(lockstep, rows)
    finally:
        lockstep.remove()
