"""What a materialization shows of its rows: bounded, and whatever they hold, so that it fails no step that stored."""

import math
from typing import Any

import dagster as dg
import pyarrow as pa

ROWS, COLUMNS, CHARACTERS = 5, 30, 200
# Of all columns Dagster keeps the types with every partition: some 40 KB of them at most.
SCHEMA_COLUMNS = 500


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """The Arrow schema as Dagster's UI shows it: the first 500 columns, long types cut short."""
    return dg.TableSchema([dg.TableColumn(f.name, _short(str(f.type))) for f in list(schema)[:SCHEMA_COLUMNS]])


def preview(rows: pa.Table) -> dict[str, dg.MetadataValue]:
    """`preview`: the first 5 rows of the first 30 columns, each value in at most 200 characters; none without rows."""
    first = rows.slice(0, ROWS).select(range(min(rows.num_columns, COLUMNS)))
    shown = {name: _values(column) for name, column in zip(first.column_names, first.itercolumns(), strict=True)}
    records = [dg.TableRecord({name: values[row] for name, values in shown.items()}) for row in range(first.num_rows)]
    return {"preview": dg.MetadataValue.table(records, column_schema(first.schema))} if records else {}


def _values(column: pa.ChunkedArray) -> list[Any]:
    try:
        return [_shown(value) for value in column.to_pylist()]
    except Exception:  # noqa: BLE001 (whatever it is, the rows are stored)
        # Python has no dates before the year 1 nor after 9999; Arrow has, and text for them.
        try:
            return [_shown(value) for value in column.cast(pa.string()).to_pylist()]
        except Exception:  # noqa: BLE001
            return [f"a {column.type} that cannot be shown"] * len(column)


def _shown(value: Any) -> str | int | float | bool | None:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # which JSON has no number for
    if value is None or isinstance(value, int | float | bool):
        return value
    # Not the whole value's text, which may take gigabytes, where a part will do.
    return _short(value if isinstance(value, str) else str(value[:CHARACTERS] if isinstance(value, bytes) else value))


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
