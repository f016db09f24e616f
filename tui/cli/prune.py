"""`prunetui prune`: build a variant and write it as a checkpoint."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from ...engine.options import Options
from ...engine.output_files import write_new
from ...engine.trace.figures import share
from ...engine.trace.printable import visible
from ...engine.variants.recipes import parse
from .progress import loading_bar


def prune(options: Options, output: Path, form: str) -> None:
    """Build the one variant of `options` and write it to a new directory or file."""
    assert options.variants is not None
    recipe = parse(options.variants[0])
    with loading_bar() as (_, report):
        from ...engine.variants.builder import open_builder
        from ...engine.variants.export import mergekit_yaml, save_checkpoint

        builder = open_builder(options, report)
        variant = builder.build(recipe)
        loaded = builder.loaded
        # On a CPU, weights of 16 bits are pruned in 32.
        dtype = None if options.dtype == "auto" else loaded.model.dtype
        if form == "mergekit":
            stored_dtype = dtype or loaded.files.dtype or loaded.model.dtype
            write_new(output, mergekit_yaml(variant, loaded.source, stored_dtype))
        else:
            report("writing", None)
            save_checkpoint(variant, loaded.files.directory, output, dtype)
    sparsity, (attention, mlp) = variant.sparsity, variant.dropped.lists
    summary = f"{recipe} is written to {output}: "
    summary += f"attention dropped in {attention}, MLP in {mlp}"
    if sparsity is not None:
        summary += f", {share(sparsity.zeros)} of the layers' weights zero"
        summary += f" ({sparsity.pattern})" if sparsity.pattern else ""
    Console(soft_wrap=True).print(Text(visible(summary)))
