"""The lanes of a session ready to decode: models prepared, lockstep built and proven."""

from collections import Counter
from collections.abc import Callable

from ..cpu.backend import backend_for
from ..model.attention import GroupedAttention
from ..model.rope import ChangingRope
from ..options import Context
from ..progress import Progress
from ..trace import records
from ..variants.builder import LaneModel
from .bandwidth import weight_bytes
from .lockstep import Lockstep
from .noise_floor import noise_floor
from .proof import prove


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
    ) -> None:
        """Install the lanes; the noise floor is measured on `prompt`, token ids.

        Raises `UserError` for a model that cannot be decoded.
        """
        self.models = models
        self._prompt = prompt
        self._progress = progress
        self.records = [_record(lane, is_baseline=lane is models[0]) for lane in models]
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
        try:
            self.weight_bytes = weight_bytes([*self._row_counts])
            """Bytes of weights that a step reads."""
            self._build_lockstep(context)
        except BaseException:
            self._prepared.remove()
            raise

    def set_context(self, context: Context) -> Callable[[], None]:
        """Rebuild the lockstep if the row count changes; return a function that puts the one before
        back, with its caches."""
        if len(self._rows(context)) == self.lockstep.row_count:
            return lambda: None
        before = self.lockstep, self.noise_floor, self.notes
        self.lockstep.remove()
        try:
            self._build_lockstep(context)
        except BaseException:
            self.lockstep.install()
            raise

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
        """Build and prove the lockstep, and measure the noise floor with its number of rows."""
        rows = [(lane.group, lane.dropped) for lane in self._rows(context)]
        self._progress("measuring the noise floor", None)
        baseline = self.models[0].group
        # At least two rows: a lane of another weight group is a batch of its own.
        row_count = max(2, sum(group is baseline for group, _ in rows))
        floor = noise_floor(
            baseline.model,
            row_count,
            self._prompt,
            lambda done: self._progress("measuring the noise floor", done),
        )
        self._progress("proving the step against transformers", None)
        lockstep = Lockstep(rows)
        lockstep.install()
        notes = [note for group, _ in rows for note in group.notes]
        try:
            proof = prove(lockstep, rows)
            notes += proof.notes
            if proof.reread:
                lockstep.remove()
                lockstep = Lockstep(rows, reread=proof.reread)
                lockstep.install()
                notes += prove(lockstep, rows).notes
        except BaseException:
            lockstep.remove()
            raise
        self.noise_floor, self.lockstep = floor, lockstep
        self.notes = [*dict.fromkeys(notes)]
        """Notes on the models for readers of the numbers, a sentence each."""

    def _rows(self, context: Context) -> list[LaneModel]:
        """The lane of each row; in context both, each variant has a second row after all lanes."""
        return self.models + (self.models[1:] if context == "both" else [])


def _record(lane: LaneModel, *, is_baseline: bool) -> records.Lane:
    sparsity, (attention, mlp) = lane.sparsity, lane.dropped.lists
    return records.Lane(
        name=lane.recipe.name,
        recipe=None if is_baseline else lane.recipe.text,
        dropped_attention=attention,
        dropped_mlp=mlp,
        sparsity=None if sparsity is None else sparsity.zeros,
        pattern=None if sparsity is None else sparsity.pattern,
    )
