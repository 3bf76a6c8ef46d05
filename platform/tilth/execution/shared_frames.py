"""Frames that several processes read from one Arrow file without copying them: whole, or each partition's rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from tilth.partition_keys import row_keys

if TYPE_CHECKING:  # half a second to import, which definitions need not pay
    import numpy as np
    import pandas as pd

_NAMED = 5

Frame: TypeAlias = "pd.DataFrame | pa.Table"


@dataclass(frozen=True)
class Sliced:
    """A frame of which each partition is given its own rows.

    `by` names the columns that hold the parts of the partition key as text or as dates: one, or for two dimensions two.
    A column that is named as a dimension holds that one, wherever it stands in `by`. Others hold the dimensions that
    are left, in the order of the key, in which Dagster sorts them by name: `EWR|2013-01` for `airport` and `month`.
    """

    frame: Frame
    by: Sequence[str]


@dataclass(frozen=True)
class SharedFrame:
    """A frame in a file: what another process needs to read it, or the rows of one partition.

    `batches` holds by partition the first of its record batches in the file and how many there are; None where every
    partition reads all of it. `others` says which keys it has rows for instead, where it has none for any partition.
    """

    path: Path
    to_pandas: bool
    batches: Mapping[str, tuple[int, int]] | None
    others: str = ""

    def has(self, partition: str) -> bool:
        """Whether there is anything in it for the partition."""
        return self.batches is None or partition in self.batches

    def read(self, partition: str) -> Frame:
        """The rows in their order, as the kind of frame that was shared. The file must stay until they are let go."""
        file = pa.ipc.open_file(pa.memory_map(str(self.path)))
        if self.batches is None:
            rows = file.read_all()
        else:
            first, count = self.batches[partition]
            rows = pa.Table.from_batches([file.get_batch(n) for n in range(first, first + count)], file.schema)
        if not self.to_pandas:
            return rows
        from tilth.conversion import to_pandas

        return to_pandas(rows)


def share(
    name: str, given: "Frame | Sliced", partitions: Sequence[str], folder: Path, dimensions: Sequence[str] = ()
) -> SharedFrame:
    """Write a frame into `folder`, under `name`, for the processes that make these partitions.

    A named index of a pandas frame becomes columns, row numbers are left out.

    Args:
        dimensions: the names of those of the partitions, in the order of the key, where there are several.

    Raises:
        TypeError: something that is no frame.
        ValueError: a column in `by` that the frame does not have, or as many columns as there are no dimensions; a
            frame whose index would be lost.
    """
    import pandas as pd

    from tilth.conversion import from_pandas

    frame = given.frame if isinstance(given, Sliced) else given
    if isinstance(frame, pd.DataFrame):
        try:
            rows = from_pandas(frame)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    elif isinstance(frame, pa.Table):
        rows = frame
    else:
        raise TypeError(
            f"{name} is a {type(frame).__name__}: give a pandas frame or a pyarrow table, or bind what is neither to "
            "the function by functools.partial."
        )
    # A file keeps one dictionary per column of categories.
    rows = rows.unify_dictionaries()
    path = folder / f"{name}.arrow"
    batches: dict[str, tuple[int, int]] | None = None
    others = ""
    with pa.ipc.new_file(str(path), rows.schema) as file:
        if isinstance(given, Sliced):
            batches, written = {}, 0
            by = _in_order(name, given.by, dimensions)
            keys = _keys(name, rows, by)
            found = _places(keys, partitions)
            others = "" if found else _others(keys, by)
            for partition, places in found.items():
                parts = rows.take(pa.array(places)).combine_chunks().to_batches()
                for part in parts:
                    file.write_batch(part)
                batches[partition] = (written, len(parts))
                written += len(parts)
        else:
            file.write_table(rows)
    return SharedFrame(path, isinstance(frame, pd.DataFrame), batches, others)


def _in_order(name: str, by: Sequence[str], dimensions: Sequence[str]) -> list[str]:
    """The columns in the order of the key's parts."""
    if len({*by}) != max(1, len(dimensions)):
        parts = f"the dimensions {' and '.join(dimensions)}" if dimensions else "one part"
        raise ValueError(
            f"{name} is sliced by {', '.join(by) or 'no column'}, but the key has {parts}: name a column for each."
        )
    left = [column for column in by if column not in dimensions]
    return [dimension if dimension in by else left.pop(0) for dimension in dimensions] or [*by]


def _keys(name: str, rows: pa.Table, by: Sequence[str]) -> pa.ChunkedArray:
    """Of each row, the key of its partition."""
    if missing := [column for column in by if column not in rows.column_names]:
        raise ValueError(f"{name} has no column {', '.join(missing)} to slice by; it has {rows.column_names}.")
    return row_keys(rows, by)


def _others(keys: pa.ChunkedArray, by: Sequence[str]) -> str:
    """Which keys there are, in words."""
    there = sorted(key for key in keys.unique().to_pylist() if key is not None)
    if not there:
        return "it has no rows at all"
    shown = ", ".join(repr(key) for key in there[:_NAMED]) + (
        f" and {len(there) - _NAMED} more" if there[_NAMED:] else ""
    )
    return f"by {' and '.join(by)} it has rows for {shown}"


def _places(keys: pa.ChunkedArray, partitions: Sequence[str]) -> "dict[str, np.ndarray]":
    """By partition that has rows, where they are, in their order."""
    import numpy as np
    import pyarrow.compute as pc

    wanted = pc.call_function("index_in", [keys], pc.SetLookupOptions(pa.array(partitions, pa.string())))
    codes = wanted.combine_chunks().fill_null(len(partitions)).to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(partitions) + 1))
    found = {key: order[ends[n] : ends[n + 1]] for n, key in enumerate(partitions)}
    return {key: places for key, places in found.items() if len(places)}
