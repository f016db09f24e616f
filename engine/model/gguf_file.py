"""GGUF files, checked before they are converted."""

from pathlib import Path

from gguf import GGUFReader

from ..errors import UserError


def check_whole(gguf: Path) -> None:
    """Raise `UserError` for one of several shards, of which transformers would read one alone.

    Raises what `GGUFReader` raises for a damaged file."""
    field = GGUFReader(gguf).get_field("split.count")
    count = 1 if field is None else int(field.contents())
    if count > 1:
        raise UserError(
            f"{gguf.name} is one of {count} shards; join them with `llama-gguf-split --merge` and "
            "name the one file"
        )
