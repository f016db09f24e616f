"""The lanes of a session, made ready to decode: fast products, fast attention, a lockstep."""

from collections import Counter

from ..cpu.backend import backend_for
from ..model.rope import ChangingRope
from ..options import Context
from ..progress import Progress
from ..trace import records
from ..variants.builder import LaneModel
from .bandwidth import weight_bytes
from .lockstep import Lockstep
from .noise_floor import noise_floor
from .proof import prove


class Lanes:
    """The baseline and its variants in the models, until `close`.

    The models are then as they were loaded, so that importance can be measured and weights pruned;
    `reopen` goes on where the caches are.
    """

    def __init__(
        self,
        models: list[LaneModel],
        context: Context,
        prompt: list[int],
        progress: Progress,
        compiled: bool = False,
    ) -> None:
        """`prompt` is tokens, on which the noise floor is measured."""
        self.models = models
        self._prompt, self._progress = prompt, progress
        self._compiled = compiled
        self.records = [_record(lane, lane is models[0]) for lane in models]
        depths = [len(lane.group.anatomy.layers) for lane in models]
        self.same_depth = [depth == depths[0] for depth in depths]
        """As the baseline's, per lane."""
        self._rows = Counter(lane.group.model for lane in self._in_rows(context))
        model = models[0].group.model
        backend = backend_for(model.device, model.dtype)
        # Torch's compiler does not see through our products.
        self._fast = backend.prepare(self._rows, linears=not compiled) if backend else None
        self._install()
        try:
            self.weight_bytes = weight_bytes([*self._rows])
            """Bytes of weights that a step reads."""
            self._make_lockstep(context)
        except BaseException:
            self._uninstall()
            raise

    def read_in(self, context: Context) -> bool:
        """Have as many rows as the context needs; whether those are others, with empty caches."""
        if len(self._in_rows(context)) == self.lockstep.rows:
            return False
        self.lockstep.close()
        try:
            self._make_lockstep(context)
        except BaseException:
            self.lockstep.reopen()
            raise
        return True

    def notes_on_length(self, positions: int) -> list[str]:
        """What must be known of models whose rotary angles change within so many positions."""
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

    def close(self) -> None:
        self.lockstep.close()
        self._uninstall()

    def reopen(self) -> None:
        self._install()
        self.lockstep.reopen()

    def _install(self) -> None:
        if self._fast:
            self._fast.install()

    def _uninstall(self) -> None:
        if self._fast:
            self._fast.remove()

    def _make_lockstep(self, context: Context) -> None:
        """Build the lockstep, prove it and measure the noise floor in so many rows."""
        lanes = [(lane.group, lane.dropped) for lane in self._in_rows(context)]
        self._progress("measuring the noise floor", None)
        baseline = self.models[0].group
        # Two rows at least: a lane of another weight group is a batch of its own.
        rows = max(2, sum(group is baseline for group, _ in lanes))
        floor = noise_floor(baseline.model, rows, self._prompt)
        self._progress("proving the step against transformers", None)
        lockstep = Lockstep(lanes, self._compiled)
        notes = [note for group, _ in lanes for note in group.notes]
        try:
            proof = prove(lockstep, lanes)
            notes += proof.notes
            if proof.reread:
                lockstep.close()
                lockstep = Lockstep(lanes, self._compiled, proof.reread)
                notes += prove(lockstep, lanes).notes
        except BaseException:
            lockstep.close()
            raise
        self.noise_floor, self.lockstep = floor, lockstep
        self.notes = [*dict.fromkeys(notes)]
        """What a reader of the numbers must know of the models, a sentence each."""

    def _in_rows(self, context: Context) -> list[LaneModel]:
        """In context both, a second lane of each variant stands behind all the first ones."""
        return self.models + (self.models[1:] if context == "both" else [])


def _record(lane: LaneModel, is_baseline: bool) -> records.Lane:
    sparsity, (attention, mlp) = lane.sparsity, lane.dropped.lists
    return records.Lane(
        name=lane.recipe.name,
        recipe=None if is_baseline else lane.recipe.text,
        dropped_attention=attention,
        dropped_mlp=mlp,
        sparsity=None if sparsity is None else sparsity.zeros,
        pattern=None if sparsity is None else sparsity.pattern,
    )
