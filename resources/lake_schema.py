"""What the lake's tables can hold, and how a table's columns may change from one write to the next."""

import pyarrow as pa

from resources.lossless import cast, may_be_cast, refuse_names, refuse_parts
from tilth.conversion import PIECE_BYTES, beyond_years

# Delta's types are fewer than Arrow's. These hold every value of the others.
_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


def lake_type(kind: pa.DataType) -> pa.DataType:
    """The type that the lake stores values of this Arrow type as: categories as their values, instants in UTC and
    microseconds, unsigned integers as the next wider signed ones; of nested types, their parts alike.

    Raises:
        TypeError: no type of the lake holds such values.
    """
    if pa.types.is_dictionary(kind):
        return lake_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(lake_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(lake_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(lake_type(kind.key_type), lake_type(kind.item_type))
    if pa.types.is_decimal(kind) and kind.bit_width <= 128:
        return pa.decimal128(kind.precision, kind.scale)
    stored = _WIDER.get(kind, kind)
    simple = pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_binary
    if any(test(stored) for test in (*simple, pa.types.is_date32, pa.types.is_null)):
        return stored
    raise TypeError(str(kind))


def storable(asset: str, schema: pa.Schema) -> pa.Schema:
    """The schema with the types that the lake stores its columns as.

    Raises:
        ValueError: a column of a type that the lake has none for.
    """
    fields = []
    for field in schema:
        try:
            kind = lake_type(field.type)
        except TypeError:
            kind = pa.null()
        if pa.types.is_null(kind):
            raise ValueError(f"{asset}: the lake has no type for {field.name}: {field.type}.")
        fields.append(field.with_type(kind))
    return pa.schema(fields)


def fitted(asset: str, rows: pa.Table, stored: pa.Schema | None) -> tuple[pa.Table, list[pa.Field]]:
    """The rows with the types and the column order of the stored table, and the columns that it lacks.

    A column that the table lacks is added to it, null in all older rows. Without any row nothing can contradict the
    stored columns, so these are taken. A column without a value takes its stored type.

    Raises:
        ValueError: a column that cannot be stored, changed its type or is missing, two of one name; with what to do.
    """
    refuse_names(asset, rows.column_names, stored.names if stored is not None else (), cases=False)
    for field in rows.schema:
        refuse_parts(asset, field)
    if stored is not None and rows.num_rows == 0:
        known = [field for field in rows.schema if field.name in stored.names or not pa.types.is_null(field.type)]
        new = [field.with_type(lake_type(field.type)) for field in known if field.name not in stored.names]
        return pa.schema([*stored, *new]).empty_table(), new
    columns, problems = {}, []
    for field, column in zip(rows.schema, rows.itercolumns(), strict=True):
        before = stored.field(field.name).type if stored is not None and field.name in stored.names else None
        try:
            kind = before if before is not None and pa.types.is_null(field.type) else lake_type(field.type)
            kind = before if before is not None and may_be_cast(kind, before) else kind
            columns[field.name] = cast(column, kind)
        except TypeError:
            problems.append(f"{field.name}: the lake has no type for {field.type}; turn it into text or numbers")
            continue
        except pa.ArrowInvalid as error:
            problems.append(f"{field.name}: {field.type} does not fit into {before or lake_type(field.type)} ({error})")
            continue
        if beyond_years(columns[field.name]):
            problems.append(
                f"{field.name}: a {kind} lies before the year 1 or after 9999, which the lake's readers lack"
            )
        elif pa.types.is_null(kind):
            problems.append(f'{field.name}: no value says its type; give it one, such as astype("float64")')
        elif before is not None and kind != before:
            problems.append(f"{field.name}: {before} is stored, {kind} came")
    missing = [field for field in stored or [] if field.name not in rows.column_names]
    problems += [f"{field.name}: {field.type} is stored, no such column came" for field in missing]
    if problems:
        raise ValueError(
            f"{asset}: columns cannot be stored as they are ({'; '.join(problems)}). Give them the stored type in the "
            f'asset; or, if the change is meant, change the whole table first: Lake.migrate("{asset}", schema).'
        )
    names = [*(stored.names if stored is not None else []), *columns]
    ordered = {name: columns[name] for name in dict.fromkeys(names)}
    fitting = pa.table(ordered)
    return fitting, [field for field in fitting.schema if stored is not None and field.name not in stored.names]


def in_one_piece(rows: pa.Table) -> pa.Table:
    """The rows in one batch: delta-rs' threads share out batches and would mix up the order of the rows of several."""
    # More text than 32 bits count would stay in several pieces.
    wide = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    fields = [
        field.with_type(wide[field.type]) if field.type in wide and column.nbytes > PIECE_BYTES else field
        for field, column in zip(rows.schema, rows.itercolumns(), strict=True)
    ]
    return rows.cast(pa.schema(fields)).combine_chunks()
