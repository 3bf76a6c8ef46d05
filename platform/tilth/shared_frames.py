"""Frames that several processes read from one Arrow file without copying them: whole, or each partition's rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

if TYPE_CHECKING:  # half a second to import, which definitions need not pay
    import numpy as np
    import pandas as pd

Frame: TypeAlias = "pd.DataFrame | pa.Table"


@dataclass(frozen=True)
class Sliced:
    """A frame of which each partition is given its own rows.

    `by` names the columns that hold the parts of the partition key as text or as dates, in the order of the key: one,
    or for two dimensions two, such as ["month", "origin"] for `2013-01|EWR`.
    """

    frame: Frame
    by: Sequence[str]


@dataclass(frozen=True)
class SharedFrame:
    """A frame in a file: what another process needs to read it, or the rows of one partition.

    `batches` holds by partition the first of its record batches in the file and how many there are; None where every
    partition reads all of it.
    """

    path: Path
    to_pandas: bool
    batches: Mapping[str, tuple[int, int]] | None

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
        return rows.to_pandas() if self.to_pandas else rows


def share(name: str, given: "Frame | Sliced", partitions: Sequence[str], folder: Path) -> SharedFrame:
    """Write a frame into `folder`, under `name`, for the processes that make these partitions. Its index is left out.

    Raises:
        TypeError: something that is no frame.
        ValueError: a column in `by` that the frame does not have.
    """
    import pandas as pd

    frame = given.frame if isinstance(given, Sliced) else given
    if isinstance(frame, pd.DataFrame):
        rows = pa.Table.from_pandas(frame, preserve_index=False)
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
    with pa.ipc.new_file(str(path), rows.schema) as file:
        if isinstance(given, Sliced):
            batches, written = {}, 0
            for partition, places in _places(name, rows, given.by, partitions).items():
                parts = rows.take(pa.array(places)).combine_chunks().to_batches()
                for part in parts:
                    file.write_batch(part)
                batches[partition] = (written, len(parts))
                written += len(parts)
        else:
            file.write_table(rows)
    return SharedFrame(path, isinstance(frame, pd.DataFrame), batches)


def _places(name: str, rows: pa.Table, by: Sequence[str], partitions: Sequence[str]) -> "dict[str, np.ndarray]":
    """By partition that has rows, where they are, in their order."""
    import numpy as np
    import pyarrow.compute as pc

    if missing := [column for column in by if column not in rows.column_names]:
        raise ValueError(f"{name} has no column {', '.join(missing)} to slice by; it has {rows.column_names}.")
    parts = [rows[column].cast(pa.string()) for column in by]
    keys = parts[0] if len(parts) == 1 else pc.call_function("binary_join_element_wise", [*parts, pa.scalar("|")])
    wanted = pc.call_function("index_in", [keys], pc.SetLookupOptions(pa.array(partitions, pa.string())))
    codes = wanted.combine_chunks().fill_null(len(partitions)).to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(partitions) + 1))
    found = {key: order[ends[n] : ends[n + 1]] for n, key in enumerate(partitions)}
    return {key: places for key, places in found.items() if len(places)}
