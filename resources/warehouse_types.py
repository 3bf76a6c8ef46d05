"""Which column each Arrow type is in the warehouse, so that what is read equals what was written.

What an engine has no column for is stored in the next wider one, where that loses nothing:

| Arrow | DuckDB gives back | PostgreSQL gives back |
| --- | --- | --- |
| bool, int16/32/64, float32/64, string, binary, date32, time64[us], decimal128 | the same | the same |
| int8; uint8/16/32 | the same | int16; int16/32/64 |
| uint64 | the same | int64, where every value fits |
| float16 | float32 | float32 |
| timestamp | the same | in us, where no value is finer |
| timestamp with a zone | the same instants in UTC, in us or ns | the same instants in UTC, in us |
| time32; time64[ns] | time64[us]; the same | time64[us], where no value is finer |
| date64 | date32, where every value is a whole day | as DuckDB |
| decimal32/64/256, negative scale | decimal128, up to 38 digits | decimal128, decimal256 over 38 digits |
| dictionary | its values' type | its values' type |
| other strings and binaries (large, view, fixed size) | string, binary | string, binary |

Durations, intervals, lists, structs, maps and other types are refused, unless a column of that very type is there.
PostgreSQL's numeric of no declared precision, such as a sum's, is text here: no one Arrow decimal holds all its values.
"""

import pyarrow as pa
import pyarrow.compute as pc

from resources.lossless import cast, holding_both, may_be_cast, refuse_names

# What PostgreSQL truncates a name to, in bytes, without an error.
_LONGEST_NAME = {"postgresql": 63}

_NAMES = {
    "duckdb": {
        pa.bool_(): "BOOLEAN",
        pa.int8(): "TINYINT",
        pa.int16(): "SMALLINT",
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.uint8(): "UTINYINT",
        pa.uint16(): "USMALLINT",
        pa.uint32(): "UINTEGER",
        pa.uint64(): "UBIGINT",
        pa.float32(): "FLOAT",
        pa.float64(): "DOUBLE",
        pa.string(): "VARCHAR",
        pa.binary(): "BLOB",
        pa.date32(): "DATE",
        pa.time64("us"): "TIME",
        pa.time64("ns"): "TIME_NS",
        pa.timestamp("s"): "TIMESTAMP_S",
        pa.timestamp("ms"): "TIMESTAMP_MS",
        pa.timestamp("us"): "TIMESTAMP",
        pa.timestamp("ns"): "TIMESTAMP_NS",
        pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
        pa.timestamp("ns", "UTC"): "TIMESTAMPTZ_NS",
    },
    "postgresql": {
        pa.bool_(): "BOOLEAN",
        pa.int16(): "SMALLINT",
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.float32(): "REAL",
        pa.float64(): "DOUBLE PRECISION",
        pa.string(): "TEXT",
        pa.binary(): "BYTEA",
        pa.date32(): "DATE",
        pa.time64("us"): "TIME",
        pa.timestamp("us"): "TIMESTAMP",
        pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
    },
}
ENGINES = tuple(_NAMES)

_SAME_VALUES = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
    pa.float16(): pa.float32(),
    pa.time32("s"): pa.time64("us"),
    pa.time32("ms"): pa.time64("us"),
}
_WIDER = {
    pa.int8(): pa.int16(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.time64("ns"): pa.time64("us"),
}


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def refuse_long_names(table: str, engine: str) -> None:
    """Refuse a table, `schema.name`, of whose names the engine would take only the beginning.

    Raises:
        ValueError: one is longer than the engine's names.
    """
    for part in table.split("."):
        if len(part.encode()) > _LONGEST_NAME.get(engine, len(part.encode())):
            raise ValueError(
                f"{table}: {engine} keeps {_LONGEST_NAME[engine]} bytes of a name and {part} is longer, so that two "
                "such tables may be one. Give the asset a shorter key."
            )


def holding_nul(rows: pa.Table) -> str | None:
    """The first column with a text that holds the character NUL."""
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    found = pc.MatchSubstringOptions("\0")
    return next((n for n in texts if True in pc.call_function("match_substring", [rows[n]], found).to_pylist()), None)


def beyond_postgres(rows: pa.Table) -> str | None:
    """The first column with a date or an instant that PostgreSQL has none for: before 4713 BC, or a date after the year
    5,874,897.
    """
    first, last = -2_440_588, 2_145_031_948
    for field, column in zip(rows.schema, rows.itercolumns(), strict=True):
        if pa.types.is_date32(field.type):
            ends, day = pc.call_function("min_max", [column.cast(pa.int32())]).as_py(), 1
        elif pa.types.is_timestamp(field.type):
            ends, day = pc.call_function("min_max", [column.cast(pa.int64())]).as_py(), 86_400_000_000
        else:
            continue
        if ends["min"] is not None and (ends["min"] < first * day or ends["max"] > last * day):
            return field.name
    return None


def stored_as(kind: pa.DataType, engine: str) -> pa.DataType:
    """The type that a new column for values of type `kind` gives back.

    Raises:
        ValueError: the engine has no such column; the message says what to give it instead.
    """
    if pa.types.is_dictionary(kind):
        return stored_as(kind.value_type, engine)
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        unit = "us" if engine == "postgresql" or (kind.tz and kind.unit != "ns") else kind.unit
        return pa.timestamp(unit, "UTC" if kind.tz else None)
    if pa.types.is_decimal(kind):
        return _decimal(kind, engine)
    kind = _SAME_VALUES.get(kind, kind)
    if kind not in _NAMES[engine]:
        kind = _WIDER.get(kind, kind)
    if kind in _NAMES[engine]:
        return kind
    if pa.types.is_null(kind):
        raise ValueError("has no value and so no type. Give it one in the asset, such as .astype('string')")
    if pa.types.is_duration(kind) or pa.types.is_interval(kind):
        raise ValueError(f"{kind} has no column that gives it back. Store a number of seconds or days instead")
    if pa.types.is_nested(kind):
        raise ValueError(f"{kind} is nested. Give its parts columns of their own, or rows of another table")
    raise ValueError(f"{kind} has no column in {engine}. Cast it in the asset to a type that has")


def sql_type(kind: pa.DataType, engine: str) -> str:
    """The column type, in SQL, whose values Arrow has as `kind`, a type that `stored_as` gave."""
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    return _NAMES[engine][kind]


def _decimal(kind: pa.DataType, engine: str) -> pa.DataType:
    scale = max(kind.scale, 0)
    precision = max(kind.precision - min(kind.scale, 0), scale)
    if precision <= 38:
        return pa.decimal128(precision, scale)
    if engine == "duckdb" or precision > 76:
        raise ValueError(f"{kind} has more digits than a decimal column of {engine}. Cast it in the asset")
    return pa.decimal256(precision, scale)


def _is_numeric(field: pa.Field) -> bool:
    return isinstance(field.type, pa.OpaqueType) and field.type.type_name == "numeric"


def type_as_read(field: pa.Field) -> pa.DataType:
    """The type that `as_read` gives the column which the driver describes so."""
    if not _is_numeric(field):
        return field.type
    # PostgreSQL's own encoding of numeric(precision, scale), which may be negative; -1 for none declared.
    declared = int((field.metadata or {}).get(b"POSTGRESQL:typmod", -1)) - 4
    precision, scale = declared >> 16 & 0xFFFF, ((declared & 0x7FF) ^ 1024) - 1024
    if declared < 0 or max(precision, scale, precision - scale) > 76:
        return pa.string()
    return _decimal(pa.decimal256(precision, scale), "postgresql")


def as_read(rows: pa.Table) -> pa.Table:
    """What the driver gave, with numeric(precision, scale) as decimals and without the driver's notes on its fields.

    Raises:
        ValueError: a numeric column holds NaN, which no decimal does.
    """
    columns = []
    for field, column in zip(rows.schema, rows.itercolumns(), strict=True):
        if not _is_numeric(field):
            columns.append(column)
            continue
        texts = pa.chunked_array([chunk.storage for chunk in column.chunks], pa.string())
        try:
            columns.append(texts.cast(type_as_read(field)))
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"column {field.name}: {error}. Read it by a query that casts it to double precision."
            ) from error
    return pa.Table.from_arrays(columns, names=rows.column_names)


def undeclared_numerics(stored: pa.Schema) -> list[str]:
    """The numeric columns of no declared precision, which come as text and take text."""
    return [field.name for field in stored if _is_numeric(field) and type_as_read(field) == pa.string()]


def fitted(table: str, rows: pa.Table, stored: pa.Schema | None, engine: str) -> tuple[pa.Table, list[pa.Field]]:
    """`rows` with the columns of `table` in its order and types, and the columns at their end that it lacks.

    `stored` is the table as the driver describes it, None where it is still to be made.

    Raises:
        ValueError: columns are missing, of another type than the stored one, or of none that gives their values back.
    """
    here = {field.name: field for field in stored or []}
    refuse_names(table, rows.column_names, list(here), cases=engine != "duckdb")
    named = ".".join(quoted(part) for part in table.split("."))
    problems: list[str] = []
    columns: dict[str, pa.ChunkedArray] = {}
    added: list[pa.Field] = []
    for field, column in zip(rows.schema, rows.itercolumns(), strict=True):
        try:
            if field.name in here:
                kind = _type_of_stored(named, field, here[field.name], engine)
            else:
                kind = _type_of_new(field, stored is not None, engine)
                added.append(pa.field(field.name, kind))
        except ValueError as error:
            problems.append(f"{table}, column {field.name}: {error}.")
            continue
        try:
            columns[field.name] = _cast(column, kind)
        except pa.ArrowInvalid as error:
            advice = "Round it or cast it in the asset"
            if field.name in here:
                advice += _widening(named, field.name, kind, stored_as(field.type, engine), engine)
            problems.append(
                f"{table}, column {field.name}: {field.type} does not fit {kind}, which {engine} stores, without loss "
                f"({error}). {advice}."
            )
    problems += [
        f"{table}, column {name}: {type_as_read(here[name])} is stored, none came. Let the asset return it, null where "
        f"it has no value, or first run ALTER TABLE {named} DROP COLUMN {quoted(name)}."
        for name in here
        if name not in rows.column_names
    ]
    if problems:
        raise ValueError("\n".join(problems))
    order = [*here, *(field.name for field in added)]
    return pa.table({name: columns[name] for name in order}), added


def _type_of_stored(named: str, field: pa.Field, stored: pa.Field, engine: str) -> pa.DataType:
    kind = type_as_read(stored)
    if pa.types.is_null(field.type):
        return kind
    if field.type == kind and not pa.types.is_interval(kind):
        return kind
    if _is_numeric(stored) and kind == pa.string() and pa.types.is_decimal(field.type):
        return kind
    came = stored_as(field.type, engine)
    if may_be_cast(came, kind):
        return kind
    if came != kind:
        raise ValueError(
            f"{kind} is stored, {field.type} came. Give it the stored type in the asset"
            f"{_widening(named, field.name, kind, came, engine)}"
        )
    return kind


def _widening(named: str, column: str, stored: pa.DataType, came: pa.DataType, engine: str) -> str:
    """How to store both, in SQL, where a type of the engine loses nothing of either."""
    both, name = holding_both(stored, came), quoted(column)
    if both is None or both == stored:
        before = quoted(named.rpartition(".")[2].strip('"') + "_before")
        return f", or first run ALTER TABLE {named} RENAME TO {before} and materialize all of its partitions"
    new = sql_type(both, engine)
    return f", or first run ALTER TABLE {named} ALTER COLUMN {name} TYPE {new} USING {name}::{new}"


def _type_of_new(field: pa.Field, joins_others: bool, engine: str) -> pa.DataType:
    if len(field.name.encode()) > _LONGEST_NAME.get(engine, len(field.name.encode())):
        raise ValueError(f"its name is longer than {_LONGEST_NAME[engine]} bytes. Give it a shorter one in the asset")
    if joins_others and not field.nullable:
        raise ValueError("is new and may not be null, as it is in the rows that are there. Declare it nullable")
    return stored_as(field.type, engine)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    return cast(column, kind)
