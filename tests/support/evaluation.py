"""Lanes of an evaluation on a saved model, and the stock models that they must equal."""

from pathlib import Path

from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.options import Options
from prunetui.engine.results.records import Settings
from prunetui.engine.variants.builder import open_builder
from prunetui.engine.variants.recipes import parse
from transformers import AutoModelForCausalLM, PreTrainedModel

from .models import zero_output


def open_lanes(model: Path, *recipes: str, **settings: object) -> EvaluatedLanes:
    """The model's baseline and variants, as an evaluation opens them."""
    options = Options(model=str(model), variants=recipes)
    builder = open_builder(options, lambda *_: None)
    models, left_out = builder.build_lanes([parse(recipe) for recipe in recipes])
    assert not left_out
    asked = Settings(**settings)  # pyright: ignore[reportArgumentType]
    return EvaluatedLanes(builder.loaded, models, options, asked, lambda *_: None)


def stock_models(lanes: EvaluatedLanes) -> list[PreTrainedModel]:
    """A stock model per lane: sublayers that a lane drops have output projections of zeros."""
    models = []
    for lane in lanes.models:
        model = AutoModelForCausalLM.from_pretrained(lanes.loaded.source).eval()
        model.load_state_dict(lane.group.model.state_dict())
        for kind, layers in zip(("attn", "mlp"), lane.dropped.lists, strict=True):
            for layer in layers:
                zero_output(model, layer, kind)
        models.append(model)
    return models
