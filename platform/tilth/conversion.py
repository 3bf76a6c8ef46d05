"""Frames as Arrow and back, with no value changed on the way: pandas, polars, pyarrow."""

from collections.abc import Iterator
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

if TYPE_CHECKING:  # installed where assets ask for it
    import polars as pl

Frame = pd.DataFrame | pa.Table | ds.Dataset

# What Arrow's strings hold in one piece: their offsets are 32 bits.
PIECE_BYTES = 2**31 - 1


def to_arrow(frame: Any) -> pa.Table:
    """Arrow with one type of text, one of bytes and no pandas metadata; pandas, polars and pyarrow frames.

    A named index of a pandas frame becomes columns, row numbers go. Categories are columns of their values where they
    come from polars.

    Raises:
        TypeError: something that is no frame.
        ValueError: a pandas frame whose index or column names would be lost or changed; pyarrow's own, a column of
            values that have no one type.
    """
    if isinstance(frame, pd.DataFrame):
        table = from_pandas(frame)
    elif isinstance(frame, pa.Table):
        table = frame
    elif isinstance(frame, ds.Dataset):
        table = frame.to_table()
    elif hasattr(frame, "__arrow_c_stream__") and not isinstance(frame, pd.Series):
        # Polars, and every other frame that speaks Arrow.
        _refuse_what_polars_breaks_on(frame)
        table = pa.table(frame)
    else:
        raise TypeError(_no_table(frame))
    fields = [field.with_type(_one_text_type(field.type)) for field in table.schema.remove_metadata()]
    columns = [_cast(column, field.type) for column, field in zip(table.itercolumns(), fields, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


_OF_NO_TIME = {"string", "bytes", "decimal", "integer", "floating", "boolean", "empty"}


def _refuse_mixed_times(frame: pd.DataFrame) -> None:
    """Arrow takes the type of an object column from its first values, and drops a time of day or a zone of others."""
    for name, column in frame.items():
        if not pd.api.types.is_object_dtype(column.dtype) or pd.api.types.infer_dtype(column) in _OF_NO_TIME:
            continue
        times = [value for value in column if isinstance(value, date | time)]
        kinds = {(isinstance(value, datetime), getattr(value, "tzinfo", None) is not None) for value in times}
        if len(kinds) > 1 or any(isinstance(value, time) and value.tzinfo for value in times):
            raise ValueError(
                f"column {name} mixes dates and times, or such with and without a zone, of which some would be cut: "
                "give it one type, such as by pd.to_datetime(..., utc=True)."
            )


def _refuse_what_polars_breaks_on(frame: Any) -> None:
    """Polars 1.44 hands on addresses in place of Python's objects, and ends the process at a name with NUL."""
    if type(frame).__module__.partition(".")[0] != "polars":
        return
    if not hasattr(frame, "schema"):
        raise TypeError(_no_table(frame))
    for name, kind in frame.schema.items():
        if "\0" in name:
            raise ValueError(f"the column name {name!r} holds the character NUL: rename the column.")
        if any(word in str(kind) for word in ("Object", "Int128")):
            raise ValueError(f"column {name} is {kind}, which Arrow has not: cast it, such as by cast(pl.String).")


def _no_table(frame: Any) -> str:
    to_frame = " Call its to_frame()." if type(frame).__name__ == "Series" else ""
    return (
        f"a {type(frame).__name__} is no table: return a pandas, polars or pyarrow frame, or name another "
        f"io_manager_key on the asset.{to_frame}"
    )


def from_pandas(frame: pd.DataFrame) -> pa.Table:
    """Arrow of a pandas frame, with its named index as columns.

    Raises:
        ValueError: as `to_arrow`.
    """
    if strange := [name for name in frame.columns if not isinstance(name, str)]:
        raise ValueError(
            f"the column name {strange[0]!r} is no text, and would be another when it is read: rename the columns, "
            "such as by frame.columns = frame.columns.map(str)."
        )
    names: list[Any] = list(frame.index.names)
    if any(name is not None for name in names):
        unlike = [name for name in names if name is None or not isinstance(name, str)]
        # An index that a column repeats says nothing more.
        repeated = [name for name in names if name in frame.columns]
        unlike += [n for n in repeated if not frame.index.get_level_values(n).equals(pd.Index(frame[n]))]
        if unlike:
            raise ValueError(
                f"the frame's index {names} cannot become columns because of {unlike[0]!r}: name its levels as no "
                "column is named and call reset_index(), or reset_index(drop=True) where it says nothing."
            )
        frame = frame.reset_index(level=[name for name in names if name not in repeated])
    elif not pd.api.types.is_integer_dtype(frame.index.dtype) and len(frame):
        raise ValueError(
            f"the frame's index holds {frame.index[0]!r} and has no name, and would be lost: call "
            'reset_index(names="…") to keep it as a column, or reset_index(drop=True).'
        )
    _refuse_mixed_times(frame)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    # The digits of Python's decimals are those of these rows alone; the next rows may have more before the point.
    inferred = [
        field.with_type(pa.decimal128(38, field.type.scale))
        if pa.types.is_decimal128(field.type) and pd.api.types.is_object_dtype(frame.dtypes.iloc[place])
        else field
        for place, field in enumerate(table.schema)
    ]
    return table.cast(pa.schema(inferred))


def _one_text_type(kind: pa.DataType) -> pa.DataType:
    """The type with `string` for its other encodings, nested ones too, and with values for categories of them."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        values = _one_text_type(kind.value_type)
        return kind if values == kind.value_type else values
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_field.with_type(_one_text_type(kind.value_type))
        return pa.list_(inner) if pa.types.is_list(kind) else pa.large_list(inner)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_one_text_type(kind.value_type)), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_one_text_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_one_text_type(kind.key_type), _one_text_type(kind.item_type))
    return kind


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    pieces = [_decoded(piece, kind) for chunk in column.chunks for piece in _pieces(chunk)]
    return pa.chunked_array(pieces, kind)


def _decoded(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array as `kind`. Arrow has no kernel that takes the values of categories from views."""
    if values.type == kind:
        return values
    if pa.types.is_dictionary(values.type):
        return _decoded(values.dictionary, kind).take(values.indices)
    if pa.types.is_struct(values.type):
        parts = [_decoded(values.field(place), part.type) for place, part in enumerate(kind)]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=values.is_null())
    if pa.types.is_fixed_size_list(values.type):
        # Of a null it holds values too, which `values` has and `flatten` has not.
        size = kind.list_size
        parts = values.values.slice(values.offset * size, len(values) * size)  # noqa: PD011 (Arrow's)
        inner = _decoded(parts, kind.value_type)
        return pa.FixedSizeListArray.from_arrays(inner, type=kind, mask=values.is_null())
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        whole = pa.ListArray if pa.types.is_list(values.type) else pa.LargeListArray
        inner = _decoded(values.flatten(), kind.value_type)
        lengths = pc.call_function("list_value_length", [values]).fill_null(0).cast(pa.int64())
        ends = pc.call_function("cumulative_sum", [lengths])
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
        offsets = offsets.cast(pa.int32() if pa.types.is_list(values.type) else pa.int64())
        return whole.from_arrays(offsets, inner, type=kind, mask=values.is_null())
    return values.cast(kind)


def _pieces(values: pa.Array) -> Iterator[pa.Array]:
    """The array in parts that each hold no more than Arrow's strings count; as it is where it holds no more."""
    if values.nbytes <= PIECE_BYTES or len(values) < 2:
        # A copy of a part: a slice still has the whole array's text beneath it.
        whole = values.offset == 0 and values.get_total_buffer_size() <= PIECE_BYTES
        yield values if whole else values.take(pa.array(range(len(values)), pa.int64()))
        return
    half = len(values) // 2
    yield from _pieces(values.slice(0, half))
    yield from _pieces(values.slice(half))


def take(rows: pa.Table, order: pa.Array) -> pa.Table:
    """The rows in this order, also where they hold more text than fits in one piece of Arrow's strings."""
    wide = [
        field.with_type(pa.large_string())
        if pa.types.is_string(field.type) and column.nbytes > PIECE_BYTES
        else field.with_type(pa.large_binary())
        if pa.types.is_binary(field.type) and column.nbytes > PIECE_BYTES
        else field
        for field, column in zip(rows.schema, rows.itercolumns(), strict=True)
    ]
    taken = rows.cast(pa.schema(wide)).take(order)
    columns = [_cast(column, field.type) for column, field in zip(taken.itercolumns(), rows.schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=rows.schema)


def as_annotated(rows: pa.Table, context: dg.InputContext) -> Any:
    """The rows as the input's annotation asks for: `pa.Table`, `pyarrow.dataset.Dataset`, `pl.DataFrame`, else pandas.

    The rows are given up: pandas columns take their place one after another, so that not both are held at once.
    """
    wanted = context.dagster_type.typing_type
    if wanted is pa.Table:
        return rows
    if wanted is ds.Dataset:
        return ds.dataset(rows)
    if getattr(wanted, "__module__", "").partition(".")[0] == "polars":
        return to_polars(rows)
    return to_pandas(rows)


def to_polars(rows: pa.Table) -> "pl.DataFrame":
    """A polars frame of the rows.

    Raises:
        ValueError: a decimal of more than polars' 38 digits.
    """
    import polars

    columns = []
    for field, column in zip(rows.schema, rows.itercolumns(), strict=True):
        if not pa.types.is_decimal256(field.type):
            columns.append(column)
            continue
        try:
            columns.append(column.cast(pa.decimal128(38, field.type.scale)))
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"column {field.name}: polars has no decimal of more than 38 digits ({error}). "
                "Annotate the input as pa.Table."
            ) from error
    found = polars.from_arrow(pa.Table.from_arrays(columns, names=rows.column_names))
    assert isinstance(found, polars.DataFrame)  # noqa: S101
    return found


def to_pandas(rows: pa.Table) -> pd.DataFrame:
    """A pandas frame in place of the rows, which must not be used afterwards.

    Whole numbers with nulls are pandas' nullable integers, not floats; in nested columns they are Python's. What pandas
    has no type for that keeps each value is Arrow-backed: times of day in nanoseconds, dates that Python has none for.
    """
    # A column in one piece would be handed over as it is, and pandas could not write to it.
    in_pieces = all(column.num_chunks > 1 for column in rows.itercolumns())
    own = {
        field.name: dtype
        for field, column in zip(rows.schema, rows.itercolumns(), strict=True)
        if (dtype := _exact_dtype(field.type, column)) is not None
    }
    if not own:
        return rows.to_pandas(self_destruct=True, split_blocks=in_pieces)
    # By name, since Arrow asks for a dtype by type and two columns of one type may differ.
    exact = {name: _exact_series(rows[name], dtype) for name, dtype in own.items()}
    order, rows = rows.column_names, rows.drop_columns(list(own))
    frame = rows.to_pandas(self_destruct=True, split_blocks=in_pieces)
    return frame.assign(**exact)[order] if len(frame.columns) else pd.DataFrame(exact)[order]


def beyond_years(column: pa.ChunkedArray) -> bool:
    """Whether a date or an instant in microseconds, also in what is nested, lies before the year 1 or after 9999:
    Python has no value for it.
    """
    kind = column.type
    if pa.types.is_struct(kind):
        return any(beyond_years(part) for part in column.flatten())
    if pa.types.is_map(kind):
        chunks = [part for chunk in column.chunks for part in (chunk.keys, chunk.items)]
        return any(beyond_years(pa.chunked_array([part])) for part in chunks)
    if pa.types.is_nested(kind):
        return any(beyond_years(pa.chunked_array([chunk.flatten()])) for chunk in column.chunks)
    if not (pa.types.is_date32(kind) or kind in (pa.timestamp("us"), pa.timestamp("us", "UTC"))):
        return False
    day = 1 if pa.types.is_date32(kind) else 86_400_000_000
    ends = pc.call_function("min_max", [column.cast(pa.int32() if day == 1 else pa.int64())]).as_py()
    return ends["min"] is not None and (ends["min"] < -719_162 * day or ends["max"] >= 2_932_897 * day)


_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


def _exact_dtype(kind: pa.DataType, column: pa.ChunkedArray) -> Any:
    """The pandas dtype that keeps the column's values where Arrow's choice would not; else None."""
    if kind in _NULLABLE:
        return _NULLABLE[kind] if column.null_count else None
    if pa.types.is_nested(kind):
        # Arrow's own way through numpy, and pandas' Arrow-backed columns when they are mapped, make floats of them.
        return object if any(_integers_with_nulls(chunk) for chunk in column.chunks) else None
    return pd.ArrowDtype(kind) if kind == pa.time64("ns") or beyond_years(column) else None


def _integers_with_nulls(values: pa.Array) -> bool:
    kind = values.type
    if pa.types.is_integer(kind):
        return values.null_count > 0
    if pa.types.is_struct(kind):
        return any(_integers_with_nulls(values.field(place)) for place in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _integers_with_nulls(values.items)
    return pa.types.is_nested(kind) and _integers_with_nulls(values.flatten())


def _exact_series(column: pa.ChunkedArray, dtype: Any) -> pd.Series:
    if dtype is object:
        return pd.Series(column.to_pylist(), dtype=object)
    return pd.Series(
        pd.array(column, dtype=dtype) if isinstance(dtype, pd.ArrowDtype) else dtype.__from_arrow__(column)
    )
