"""Tables as Parquet, written by pyarrow."""

import io
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ...errors import UserError
from .table import Cell, Kind

HEADER_KEY = "prunetui"
"""Key in the file's metadata of the header of the trace or evaluation, in JSON."""


def parquet_bytes(
    columns: Mapping[str, Kind], rows: Iterable[Sequence[Cell]], header: msgspec.Struct
) -> bytes:
    """Parquet of a table, lists as lists; a number that is missing or not finite is null.

    Raises `UserError` without pyarrow.
    """
    try:
        # Optional, and slow to import.
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(
            "Parquet is written by pyarrow, which is not installed; pip install pyarrow"
        ) from error
    types = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "text": pa.string()}
    types |= {f"{kind}s": pa.list_(types[kind]) for kind in ("int", "float", "text")}
    schema = pa.schema(
        [(name, types[kind]) for name, kind in columns.items()],
        metadata={HEADER_KEY: msgspec.json.encode(header)},
    )
    table = [*rows]
    arrays = [
        pa.array([row[index] for row in table], field.type) for index, field in enumerate(schema)
    ]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), out)
    return out.getvalue()
