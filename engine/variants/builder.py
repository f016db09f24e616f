"""From recipes to lanes: gates, and weight groups where weights change."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from ..disk_cache import cached
from ..errors import UserError
from ..model.anatomy import Anatomy, find_anatomy
from ..model.dropped import LaneGates
from ..model.gates import Gates
from ..model.loading import Loaded, load, load_checkpoint
from ..model.weight_group import WeightGroup, share_equal_tensors, unchanged_weights
from ..options import Options
from ..out_of_memory import out_of_memory
from ..progress import Progress
from ..trace.records import MOST_LANES
from .calibration import Calibration
from .pruning.importance import measure_similarity
from .pruning.layerwise import sparsify_model
from .pruning.ranking import Similarity, droppable, kinds, least_important
from .recipes import Checkpoint, Drop, Recipe, Sparsify
from .sparsity import Sparsity, find_sparsity

NAMES = {
    "attn": "attention sublayers",
    "mlp": "MLP sublayers",
    "joint": "sublayers",
    "block": "layers",
}


@dataclass(frozen=True)
class Variant:
    """What one lane decodes with."""

    recipe: Recipe
    group: WeightGroup
    gates: LaneGates
    sparsity: Sparsity | None = None
    """None where the weights are the baseline's."""


@dataclass
class _State:
    """A variant as far as its recipe has been applied."""

    group: WeightGroup
    applied: str = ""
    """The parts so far, as text: what a measurement depends on."""
    checkpoint: str = ""
    """The fingerprint of the one that it began with."""
    dropped: dict[str, set[int]] = field(default_factory=lambda: {"attn": set(), "mlp": set()})

    @property
    def gates(self) -> LaneGates:
        return LaneGates(frozenset(self.dropped["attn"]), frozenset(self.dropped["mlp"]))


def open_builder(options: Options, progress: Progress) -> "VariantBuilder":
    """Load the baseline. Raises `UserError` for what the options got wrong."""
    loaded = load(options, progress)
    progress("checking the anatomy", None)
    return VariantBuilder(loaded, find_anatomy(loaded.model), options, progress)


class VariantBuilder:
    """Builds variants of one baseline; equal weights are made once and shared."""

    def __init__(
        self, loaded: Loaded, anatomy: Anatomy, options: Options, progress: Progress
    ) -> None:
        self.baseline = WeightGroup(
            *(loaded.model, anatomy, loaded.name, loaded.files, loaded.reference),
            notes=tuple(loaded.notes),
        )
        self.loaded = loaded
        self._options = options
        self._progress = progress
        self.calibration = Calibration(loaded, options)
        self._made: dict[str, tuple[WeightGroup, LaneGates]] = {}
        self._fingerprints: dict[str, str] = {}
        """Of checkpoints, by the parts that name them."""

    def build(self, recipe: Recipe) -> Variant:
        """Raises `UserError` for a part that cannot apply, with the recipe and the reason."""
        state = _State(self.baseline)
        for part in recipe.parts:
            try:
                self._apply(part, state)
            except UserError as error:
                raise UserError(f"recipe {recipe}: {error}") from error
            except Exception as error:
                if not out_of_memory(error):
                    raise
                raise VariantTooBigError(
                    f"variant {recipe.name} is left out: out of memory while applying {part}"
                ) from error
        group, gates = state.group, state.gates
        if group is self.baseline:
            return Variant(recipe, group, gates)
        dropped = group.anatomy.sublayers(gates.attention, gates.mlp)
        return Variant(recipe, group, gates, find_sparsity(group, dropped))

    def build_all(self, recipes: Iterable[Recipe]) -> tuple[list[Variant], list[str]]:
        """The baseline and the variants, and a sentence for each that memory has no room for.

        Raises `UserError` for more than a trace can have.
        """
        recipes = [*recipes]
        if len(recipes) >= MOST_LANES:
            raise UserError(
                f"{len(recipes)} variants and the baseline are too many lanes; a session has at "
                f"most {MOST_LANES}"
            )
        lanes = [Variant(Recipe((), "baseline"), self.baseline, LaneGates())]
        left_out: list[str] = []
        for recipe in recipes:
            try:
                lanes.append(self.build(recipe))
            except VariantTooBigError as error:
                left_out.append(str(error))
        return lanes, left_out

    def forget_all_but(self, lanes: Iterable[Variant]) -> None:
        """Keep no weights that none of the lanes reads."""
        used = {lane.group for lane in lanes}
        self._made = {key: made for key, made in self._made.items() if made[0] in used}

    def _apply(self, part: Drop | Sparsify | Checkpoint, state: _State) -> None:
        applied = f"{state.applied}+{part}".removeprefix("+")
        if isinstance(part, Drop):
            self._drop(part, state)
        else:
            if applied not in self._made:
                if isinstance(part, Sparsify):
                    self._made[applied] = (self._sparsified(part, state), state.gates)
                else:
                    self._made[applied] = self._checkpoint(part)
            if isinstance(part, Checkpoint):
                state.checkpoint = self._fingerprints[applied]
            state.group, gates = self._made[applied]
            state.dropped = {"attn": set(gates.attention), "mlp": set(gates.mlp)}
        state.applied = applied

    def _sparsified(self, part: Sparsify, state: _State) -> WeightGroup:
        group = state.group.copy()
        windows = [] if part.method == "magnitude" else self.calibration.windows()
        with _gates(group.anatomy, state.gates):
            sparsify_model(
                group.model,
                group.anatomy,
                part,
                windows,
                lambda done: self._progress(f"applying {part}", done),
            )
        return group

    def _checkpoint(self, part: Checkpoint) -> tuple[WeightGroup, LaneGates]:
        loaded = load_checkpoint(part.source, self._options, self.loaded, self._progress)
        self._fingerprints[str(part)] = loaded.fingerprint
        model = loaded.model
        with unchanged_weights(model):
            share_equal_tensors(model, self.loaded.model)
        group = WeightGroup(
            *(model, find_anatomy(model), loaded.name, loaded.files, loaded.reference),
            notes=tuple(loaded.notes),
        )
        gates = LaneGates(loaded.dropped.attention, loaded.dropped.mlp)
        if gates != LaneGates():
            check_droppable(group)
        return group, gates

    def baseline_similarity(self) -> Similarity:
        """What the baseline's sublayers and layers do, by the calibration text."""
        return self._similarity(_State(self.baseline))

    # -- dropping -----------------------------------------------------------------------------

    def _drop(self, part: Drop, state: _State) -> None:
        check_droppable(state.group)
        depth = len(state.group.anatomy.layers)
        if part.layers:
            if part.layers[-1] >= depth:
                raise UserError(
                    f"{part} names layer {part.layers[-1]}, but the model's {depth} layers are "
                    f"0 to {depth - 1}"
                )
            for kind in kinds(part):
                state.dropped[kind].update(part.layers)
            return
        if part.count > (left := droppable(part, depth, state.dropped)):
            raise UserError(
                f"{part} drops {part.count} {NAMES[part.kind]}, but there are {left} to drop"
            )
        for count in [1] * part.count if part.iterative else [part.count]:
            similarity = self._similarity(state)
            for kind, layer in least_important(part, count, similarity, state.dropped):
                state.dropped[kind].add(layer)

    def _similarity(self, state: _State) -> Similarity:
        """Of what the state leaves, measured once per model, calibration and state."""
        weights = state.applied if state.group is not self.baseline else ""
        dropped = repr((sorted(state.dropped["attn"]), sorted(state.dropped["mlp"])))
        key = [self.loaded.fingerprint, *self.calibration.key, weights, state.checkpoint, dropped]

        def make(directory: Path) -> None:
            self._progress("ranking the sublayers", None)
            # Before the gates: the baseline may have to say them.
            windows = self.calibration.windows()
            with _gates(state.group.anatomy, state.gates):
                result = measure_similarity(
                    state.group.model,
                    state.group.anatomy,
                    windows,
                    lambda done: self._progress("ranking the sublayers", done),
                )
            (directory / "similarity.json").write_bytes(msgspec.json.encode(result))

        place = cached("similarity", key, make)
        return msgspec.json.decode((place / "similarity.json").read_bytes(), type=Similarity)


class VariantTooBigError(UserError):
    """A variant that memory has no room for; the others can go on without it."""


def _gates(anatomy: Anatomy, gates: LaneGates) -> Gates:
    """Gates for a batch of one row."""
    dropped = anatomy.sublayers(gates.attention, gates.mlp)
    return Gates(dict.fromkeys(dropped, torch.tensor([True])))


def check_droppable(group: WeightGroup) -> None:
    """Raises `UserError` if closed gates are not the identity in this family."""
    family = group.model.config.model_type
    for number, layer in enumerate(group.anatomy.layers):
        if not (layer.attention and layer.mlp):
            raise UserError(
                f"this {family} model does not take layer dropping: layer {number} has no pair of "
                "attention and MLP that prunetui knows"
            )
    if not group.anatomy.droppable:
        raise UserError(
            f"this {family} model does not take layer dropping: with a layer's attention and MLP "
            "closed, its output is not its input"
        )
