"""From a recipe to the weights and dropped sublayers of a lane."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from ..disk_cache import cached
from ..errors import OptionError, UserError
from ..model.anatomy import Anatomy, find_anatomy
from ..model.device_memory import TooBigError
from ..model.dropped import SUBLAYERS, Dropped
from ..model.fused_weights import fuse_weights
from ..model.gates import Gates
from ..model.loading import Loaded, load, load_checkpoint
from ..model.swapped_weights import compare_modules
from ..model.weight_group import WeightGroup, share_tensors
from ..options import Options
from ..out_of_memory import guard_memory, release_failed_attempt
from ..progress import Progress
from ..trace import records
from .calibration import Calibration
from .calibration_text import file_source
from .option_checks import check_lane_count
from .pruning.importance import measure_similarity
from .pruning.kl_importance import measure_kl
from .pruning.layerwise import sparsify_model
from .pruning.ranking import (
    MEASURED_KINDS,
    MeasuredKind,
    Similarity,
    candidates,
    droppable_count,
    least_divergent,
    least_important,
    measured_kinds,
)
from .recipes import Checkpoint, Drop, Part, Recipe, Restore, Sparsify
from .sparsity import Sparsity, find_sparsity

KIND_NAMES = {
    "attn": "attention sublayers",
    "mlp": "MLP sublayers",
    "joint": "sublayers",
    "block": "layers",
}


@dataclass(frozen=True)
class LaneModel:
    """Recipe, weights and dropped sublayers of a lane."""

    recipe: Recipe
    group: WeightGroup
    dropped: Dropped
    sparsity: Sparsity | None = None
    """Sparsity of the weights; None where they are the baseline's."""


def lane_records(lanes: Sequence[LaneModel]) -> list[records.Lane]:
    """Records of the lanes for the files that have their numbers; the first is the baseline."""
    return [
        records.Lane(
            name=lane.recipe.name,
            recipe=lane.recipe.text if number else None,
            dropped_attention=lane.dropped.lists[0],
            dropped_mlp=lane.dropped.lists[1],
            sparsity=None if lane.sparsity is None else lane.sparsity.zeros,
            pattern=None if lane.sparsity is None else lane.sparsity.pattern,
        )
        for number, lane in enumerate(lanes)
    ]


@dataclass
class _State:
    """Weights and dropped sublayers after the parts of a recipe applied so far."""

    group: WeightGroup
    applied: str = ""
    """Those parts as text, on which a measurement depends."""
    files: tuple[str, ...] = ()
    """Fingerprint of the checkpoint and contents of the texts that those parts name."""
    dropped: Dropped = field(default_factory=Dropped)


def open_builder(options: Options, progress: Progress) -> "VariantBuilder":
    """Load the baseline. Raises `UserError` for what the options got wrong."""
    loaded = load(options, progress)
    progress("checking the anatomy", None)
    return VariantBuilder(loaded, find_anatomy(loaded.model), options, progress)


class VariantBuilder:
    """Builder of the lanes' weights from one baseline; equal weights are built once and shared."""

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
        self.calibration = Calibration(loaded, options, progress)
        self._built: dict[str, tuple[WeightGroup, Dropped]] = {}
        """Weights and dropped sublayers by the parts applied, as text."""
        self._fingerprints: dict[str, str] = {}
        """Checkpoints' fingerprints by the parts that name them."""
        self._texts: dict[str, Calibration] = {"": self.calibration}
        """Texts by the paths that recipes name; they are read once."""

    def build(self, recipe: Recipe) -> LaneModel:
        """Apply a recipe to the baseline. Raises `UserError` for a part that cannot apply."""
        state = _State(self.baseline)
        for part in recipe.parts:
            left_out = f"variant {recipe.name} is left out: out of memory while applying {part}"
            try:
                with guard_memory(left_out, VariantTooBigError):
                    self._apply(part, state)
            except VariantTooBigError:
                raise
            except TooBigError as error:
                raise VariantTooBigError(f"variant {recipe.name} is left out: {error}") from error
            except UserError as error:
                kind = OptionError if isinstance(error, OptionError) else UserError
                raise kind(f"recipe {recipe}: {error}") from error
        group, dropped = state.group, state.dropped
        sparsity = None if group is self.baseline else find_sparsity(group, dropped)
        return LaneModel(recipe, group, dropped, sparsity)

    def build_lanes(self, recipes: Iterable[Recipe]) -> tuple[list[LaneModel], list[str]]:
        """Baseline and variants, and a sentence for each variant that memory has no room for.

        Raises `UserError` for more lanes than a trace can have.
        """
        recipes = [*recipes]
        check_lane_count(recipes)
        lanes = [LaneModel(Recipe((), "baseline"), self.baseline, Dropped())]
        left_out: list[str] = []
        for recipe in recipes:
            built_before = {*self._built}
            try:
                lanes.append(self.build(recipe))
            except VariantTooBigError as error:
                left_out.append(str(error))
                # Those of the recipe's first parts, which no lane reads.
                for key in self._built.keys() - built_before:
                    del self._built[key]
                # Before the next one is built, which may fit.
                release_failed_attempt(error)
        return lanes, left_out

    def forget_all_but(self, lanes: Iterable[LaneModel]) -> None:
        """Release built weights that none of the lanes reads."""
        used = {lane.group for lane in lanes}
        self._built = {key: built for key, built in self._built.items() if built[0] in used}

    def _apply(self, part: Part, state: _State) -> None:
        applied = f"{state.applied}+{part}".removeprefix("+")
        if isinstance(part, Drop):
            self._drop(part, state)
        elif isinstance(part, Restore):
            self._restore(part, state, applied)
        else:
            if applied not in self._built:
                if isinstance(part, Sparsify):
                    self._built[applied] = (self._sparsify(part, state), state.dropped)
                else:
                    self._built[applied] = self._load(part)
            if isinstance(part, Checkpoint):
                state.files += (self._fingerprints[applied],)
            state.group, state.dropped = self._built[applied]
        state.applied = applied

    def _sparsify(self, part: Sparsify, state: _State) -> WeightGroup:
        group = state.group.copy()
        windows = [] if part.method == "magnitude" else self.calibration.windows()
        with _gates(group.anatomy, state.dropped):
            sparsify_model(
                group.model,
                group.anatomy,
                part,
                windows,
                lambda done: self._progress(f"applying {part}", done),
            )
        fuse_weights(group.model, state.group.model)
        return group

    def _load(self, part: Checkpoint) -> tuple[WeightGroup, Dropped]:
        loaded = load_checkpoint(part.source, self._options, self.loaded, self._progress)
        self._fingerprints[str(part)] = loaded.fingerprint
        model = loaded.model
        fuse_weights(model, self.loaded.model)
        group = WeightGroup(
            *(model, find_anatomy(model), loaded.name, loaded.files, loaded.reference),
            notes=tuple(loaded.notes),
        )
        if loaded.dropped:
            check_droppable(group)
        return group, loaded.dropped

    def _restore(self, part: Restore, state: _State, applied: str) -> None:
        _check_layers(part, len(state.group.anatomy.layers))
        if applied in self._built:
            state.group, state.dropped = self._built[applied]
            return
        group = state.group if state.group is self.baseline else state.group.copy()
        differing = compare_modules(self.baseline, group, group.name).by_part
        tied, own_tied = (
            each.model.config.get_text_config().tie_word_embeddings
            for each in (self.baseline, group)
        )
        if part.kind == "outside" and tied != own_tied:
            raise OptionError(
                f"{part} cannot be applied: the head is tied to the embeddings in only one of "
                f"{group.name} and the baseline, and its config.json would no longer be right"
            )
        pairs = [pair for named in part.parts for pair in differing.get(named, ())]
        if not pairs and state.dropped - part.listed == state.dropped:
            raise OptionError(f"{part} gives nothing back: what it names is as in the baseline")
        state.dropped -= part.listed
        if pairs:
            for original, own in pairs:
                share_tensors(own, original, [name for name, _ in original.named_parameters()])
            state.group = group
            self._built[applied] = group, state.dropped

    def baseline_similarity(self) -> Similarity:
        """Importance of the baseline's sublayers and layers on the calibration text."""
        return self._similarity(_State(self.baseline))

    # -- dropping -----------------------------------------------------------------------------

    def _drop(self, part: Drop, state: _State) -> None:
        check_droppable(state.group)
        depth = len(state.group.anatomy.layers)
        if part.layers:
            _check_layers(part, depth)
            state.dropped |= part.listed
            return
        if part.count > (left := droppable_count(part, depth, state.dropped)):
            raise OptionError(
                f"{part} drops {part.count} {KIND_NAMES[part.kind]}, but there are {left} to drop"
            )
        counts = [1] * part.count if part.iterative else [part.count]
        for number, count in enumerate(counts):
            if part.by == "kl":
                state.dropped |= self._least_divergent(part, count, state, number, len(counts))
            else:
                similarity = self._similarity(state, number, len(counts))
                state.dropped |= least_important(part, count, similarity, state.dropped)
        if part.text:
            state.files += (*self._text(part.text).key,)

    def _similarity(self, state: _State, number: int = 0, times: int = 1) -> Similarity:
        """Importance in what the state leaves, cached per model, calibration and state.

        It is measurement `number` of so many, for the fraction that is reported.
        """
        key = self._key(state, self.calibration)

        def make(directory: Path) -> None:
            # Before the gates: the baseline may have to write the calibration text.
            windows = self.calibration.windows()
            self._progress("ranking the sublayers", number / times)
            with _gates(state.group.anatomy, state.dropped):
                result = measure_similarity(
                    state.group.model,
                    state.group.anatomy,
                    windows,
                    lambda done: self._progress("ranking the sublayers", (number + done) / times),
                )
            (directory / "similarity.json").write_bytes(msgspec.json.encode(result))

        directory = cached("similarity", key, make)
        return msgspec.json.decode((directory / "similarity.json").read_bytes(), type=Similarity)

    def _least_divergent(
        self, part: Drop, count: int, state: _State, number: int, times: int
    ) -> Dropped:
        """What the part drops next, by KL; measurement `number` of so many."""
        depth, kinds = len(state.group.anatomy.layers), measured_kinds(part)
        measured: list[tuple[Dropped, float | None]] = []
        for index, kind in enumerate(kinds):
            run = part.count if part.consecutive else 1
            drops = candidates(kind, depth, state.dropped, run)
            before, all_of_them = number * len(kinds) + index, times * len(kinds)
            kl = self._kl(drops, state, part.text, before, all_of_them)
            measured += zip(drops, kl, strict=True)
        return least_divergent(part, count, measured)

    def baseline_kl(self) -> dict[MeasuredKind, list[float | None]]:
        """KL(p ‖ q) in nats, the mean over the calibration tokens, with each attention sublayer,
        MLP sublayer and layer of the baseline dropped alone; None where it is not finite."""
        check_droppable(self.baseline)
        depth = len(self.baseline.anatomy.layers)
        return {
            kind: self._kl(
                *(candidates(kind, depth, Dropped()), _State(self.baseline)),
                *("", number, len(MEASURED_KINDS)),
            )
            for number, kind in enumerate(MEASURED_KINDS)
        }

    def _kl(
        self, drops: list[Dropped], state: _State, text: str, number: int, times: int
    ) -> list[float | None]:
        """Mean KL(p ‖ q) in nats, with each of these dropped in what the state leaves, cached."""
        calibration = self._text(text)
        key = [*self._key(state, calibration), json.dumps([each.lists for each in drops])]

        def make(directory: Path) -> None:
            windows = calibration.windows()
            result = measure_kl(
                *(self.baseline, state.group, [state.dropped | each for each in drops], windows),
                lambda done: self._progress("ranking by KL", (number + done) / times),
            )
            (directory / "kl.json").write_bytes(msgspec.json.encode(result))

        directory = cached("kl", key, make)
        return msgspec.json.decode((directory / "kl.json").read_bytes(), type=list[float | None])

    def _text(self, file: str) -> Calibration:
        """Samples of the text of a file, as many as of the calibration text, which is ""."""
        if file not in self._texts:
            options = msgspec.structs.replace(self._options, calibration=file_source(file))
            self._texts[file] = Calibration(self.loaded, options, self._progress)
        return self._texts[file]

    def _key(self, state: _State, calibration: Calibration) -> list[str]:
        """Strings that change with what is measured on a text in what the state leaves."""
        weights = [""]
        if state.group is not self.baseline:
            # Weights may be pruned on the calibration text, whatever text they are measured on.
            weights = [state.applied, *self.calibration.key]
        dropped = json.dumps(dict(zip(SUBLAYERS, state.dropped.lists, strict=True)))
        return [self.loaded.fingerprint, *calibration.key, *weights, *state.files, dropped]


class VariantTooBigError(UserError):
    """Lack of memory for one variant; the other lanes can go on without it."""


def _check_layers(part: Drop | Restore, depth: int) -> None:
    """Raise `UserError` if a part lists a layer that is not there."""
    if part.layers and part.layers[-1] >= depth:
        raise OptionError(
            f"{part} names layer {part.layers[-1]}, but the model's {depth} layers are 0 to "
            f"{depth - 1}"
        )


def _gates(anatomy: Anatomy, dropped: Dropped) -> Gates:
    """Gates of the dropped sublayers for a batch of one row."""
    return Gates(dict.fromkeys(anatomy.sublayers(dropped), torch.tensor([True])))


def check_droppable(group: WeightGroup) -> None:
    """Raise `UserError` if a layer with both gates closed is not the identity in this family."""
    family = group.model.config.model_type
    for number, layer in enumerate(group.anatomy.layers):
        if not (layer.attention and layer.mlp):
            raise OptionError(
                f"this {family} model does not take layer dropping: layer {number} has no pair of "
                "attention and MLP that prunetui knows"
            )
    if not group.anatomy.droppable:
        raise OptionError(
            f"this {family} model does not take layer dropping: with a layer's attention and MLP "
            "closed, its output is not its input"
        )
