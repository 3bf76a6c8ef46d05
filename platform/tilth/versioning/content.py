"""Data versions that mean something: a hash of the content.

Dagster compares them to say what changed. Its own default is a hash of the run's id and so changes with every run.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_LENGTH = 16  # hexadecimal digits: 64 bits, enough to tell the versions of one partition apart
_LARGE_BYTES = 2**20  # from here on hashing takes longer than starting threads for it


def data_version(table: pa.Table, *, ordered: bool = True) -> str:
    """A hash of the table's content: its columns' names and types and their values.

    Equal for equal values however they are chunked, whatever lies in memory beneath a null, and in whatever order and
    width a column of categories counts them: it is a column of its values.

    Args:
        ordered: whether another order of the rows is another content.
    """
    rows = pa.Table.from_arrays([_plain(column) for column in table.itercolumns()], names=table.column_names)
    rows = rows if ordered else _sorted(rows)
    digest = hashlib.sha256(str(rows.num_rows).encode())
    if rows.nbytes < _LARGE_BYTES:
        digests = [*map(_column_digest, rows.schema, rows.itercolumns())]
    else:
        with ThreadPoolExecutor(pa.cpu_count()) as threads:
            digests = [*threads.map(_column_digest, rows.schema, rows.itercolumns())]
    for of_column in digests:
        digest.update(of_column)
    return digest.hexdigest()[:_LENGTH]


def _sorted(rows: pa.Table) -> pa.Table:
    # Arrow sorts no nested values; the words for them, which tell any two apart, it does.
    keys = [
        pa.array(map(repr, column.to_pylist()), pa.string()) if pa.types.is_nested(column.type) else column
        for column in rows.itercolumns()
    ]
    # To the sort 0.0 and -0.0 are one number, in the content they are two.
    keys += [_bits(column) for column in rows.itercolumns() if pa.types.is_floating(column.type)]
    by_number = pa.Table.from_arrays(keys, names=[str(number) for number in range(len(keys))])
    order = pc.SortOptions([(name, "ascending") for name in by_number.column_names])
    return rows.take(pc.call_function("sort_indices", [by_number], order))


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    whole = {16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[column.type.bit_width]
    return pa.chunked_array([chunk.view(whole) for chunk in column.chunks], whole)


def _column_digest(field: pa.Field, column: pa.ChunkedArray) -> bytes:
    digest = hashlib.sha256(f"{field.name}\0{field.type}\0".encode())
    for buffer in _buffers(column):
        digest.update(buffer)
    return digest.digest()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.string() if pa.types.is_string_view(kind) else pa.binary())
    return column


def _buffers(column: pa.ChunkedArray) -> Iterator[Any]:
    """The column's values as bytes that depend on the values alone."""
    kind = column.type
    yield f"{len(column)}\0{column.null_count}\0".encode()
    if column.null_count:
        for chunk in column.chunks:
            yield chunk.is_valid().cast(pa.uint8()).to_numpy()
    if pa.types.is_boolean(kind):
        for chunk in column.chunks:
            yield chunk.fill_null(False).cast(pa.uint8()).to_numpy()
    elif _is_text(kind):
        for chunk in column.chunks:
            yield pc.call_function("binary_length", [chunk]).fill_null(0).cast(pa.int64()).to_numpy()
        for chunk in column.chunks:
            text = chunk.drop_null().cast(pa.large_binary())
            yield pc.call_function("binary_join", [_one_list(text), pa.scalar(b"", text.type)])[0].as_buffer()
    elif pa.types.is_primitive(kind) and not pa.types.is_interval(kind):
        whole = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[kind.bit_width]
        for chunk in column.chunks:
            yield chunk.view(whole).fill_null(0).to_numpy()
    elif pa.types.is_decimal(kind):
        yield from _buffers(column.cast(pa.string()))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _buffers(pc.call_function("list_value_length", [column]).cast(pa.int64()))
        yield from _buffers(pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type))
    elif pa.types.is_struct(kind):
        for position, part in enumerate(kind):
            yield from _buffers(pa.chunked_array([chunk.flatten()[position] for chunk in column.chunks], part.type))
    elif pa.types.is_map(kind):
        entries = pa.struct([pa.field("key", kind.key_type, nullable=False), kind.item_field])
        yield from _buffers(column.cast(pa.list_(entries)))
    else:
        # Through IPC, as one array, so that neither chunks nor slices differ.
        batch = pa.record_batch([pa.concat_arrays(column.chunks or [pa.array([], kind)])], names=["c"])
        yield batch.serialize()


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _one_list(values: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
