"""From landed bytes to typed rows: what keeps to the schema is accepted, each other line is rejected with a reason.

Every line after a file's header is accounted for: it is one or the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
from pandera.errors import SchemaErrorReason, SchemaErrors

from resources.ingestion.parsing import Fault, ParsedFile, UnreadableFileError, abbreviated, parse
from resources.ingestion.tables import LandedTable

REJECTED = pyarrow.schema(
    [
        ("partition_day", pyarrow.date32()),
        ("file", pyarrow.string()),
        ("line", pyarrow.int64()),
        ("column", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("record", pyarrow.string()),
    ]
)

_REASONS = 3  # of a file are named, in a message

_OF_ROWS = {SchemaErrorReason.DATAFRAME_CHECK, SchemaErrorReason.SERIES_CONTAINS_NULLS}


@dataclass(frozen=True)
class Count:
    """What became of one file's lines."""

    rows: int
    rejected: int


@dataclass(frozen=True)
class Batch:
    """What some of one table's files held.

    rows: the declared columns, Arrow-backed, in the order of files and lines.
    rejected: one row per line turned away: partition_day (null for a table that lands whole), file, line (from 1, the
        header), column (names joined by ", "; null when the whole line is at fault), reason (joined by "; "), record
        (the line as it came; bytes that are no text as \\xNN).
    counts: per partition read, a partition without rows too; unreadable ones are absent.
    commonest: per partition with lines turned away, the commonest reasons, each a sentence with an example line.
    unreadable: the files that could not be taken at all.
    """

    rows: pd.DataFrame
    rejected: pyarrow.Table
    counts: dict[str | None, Count]
    commonest: dict[str | None, list[str]]
    unreadable: list[UnreadableFileError]

    @property
    def arrow(self) -> pyarrow.Table:
        """The rows with exactly the declared Arrow types."""
        return pyarrow.table({name: pyarrow.array(self.rows[name]) for name in self.rows.columns})


def read_files(table: LandedTable, files: Iterable[tuple[str, str | None, bytes]]) -> Batch:
    """Read landed files of one table as one batch.

    Each file is its name, its partition (None for a table that lands whole) and its bytes; an iterator is drawn one
    file at a time. One file that cannot be read holds no other back: it is in `unreadable`.

    Rows are validated together, since one pandera call costs more than a day's rows; the verdicts are those of file by
    file. Of a day's rows with the same key the first valid one stays.
    """
    read: list[ParsedFile] = []
    unreadable: list[UnreadableFileError] = []
    for name, partition, data in files:
        try:
            read.append(parse(table, name, partition, data))
        except UnreadableFileError as error:
            unreadable.append(error)
    schema = table.pandera_schema()
    typed = pyarrow.concat_tables([table.arrow_schema().empty_table(), *(file.rows for file in read)])
    frame = typed.combine_chunks().to_pandas(types_mapper=pd.ArrowDtype)
    places = [(file, line) for file in read for line in file.lines]

    for row, fault in _broken_rules(schema, frame):
        file, line = places[row]
        file.blame(line, fault)
    valid = np.fromiter((line not in file.faults for file, line in places), dtype=bool, count=len(places))
    key = list(schema.unique or ())
    for row, first in _repeats(key, table.day, frame[valid]):
        file, line = places[row]
        file.blame(line, Fault(tuple(key), f"{', '.join(key)}: line {places[first][1]} has the same", "repeated"))
        valid[row] = False

    return Batch(
        rows=frame if valid.all() else frame[valid].reset_index(drop=True),
        rejected=pyarrow.Table.from_pylist([row for file in read for row in _rejections(file)], schema=REJECTED),
        counts={f.partition: Count(len(f.texts) - len(f.faults), len(f.faults)) for f in read},
        commonest={f.partition: _commonest(f) for f in read if f.faults},
        unreadable=unreadable,
    )


def _broken_rules(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> Iterator[tuple[int, Fault]]:
    """The schema's rules that rows break, in words; rules of one column first. Keys are not looked at."""
    try:
        schema.validate(frame, lazy=True, inplace=True)
    except SchemaErrors as errors:
        broken = [e for e in errors.schema_errors if e.reason_code is not SchemaErrorReason.DUPLICATES]
        if any(error.reason_code not in _OF_ROWS for error in broken):
            raise
        for error in sorted(broken, key=lambda error: error.schema is schema):
            check, cases = cast(pa.Check, error.check), cast(pd.DataFrame, error.failure_cases)
            columns = str(check.name).split(", ") if error.schema is schema else [error.schema.name]
            rule = "is missing" if error.reason_code is SchemaErrorReason.SERIES_CONTAINS_NULLS else str(check.error)
            rows = cases["index"].unique()
            for row, *values in frame.loc[rows, columns].astype(object).itertuples(name=None):
                given = ", ".join("missing" if pd.isna(value) else abbreviated(str(value)) for value in values)
                said = rule if given == "missing" else f"{given} {rule}"
                yield row, Fault(tuple(columns), f"{', '.join(columns)}: {said}", rule)


def _repeats(key: list[str], day: str, frame: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """Rows whose key an earlier row of the day has, with that row."""
    if not key:
        return
    key = key if day in key or not day else [*key, day]
    repeated = frame.duplicated(key)
    if repeated.any():
        keys = frame[key].reset_index(names="row")
        pairs = keys[repeated.to_numpy()].merge(keys[~repeated.to_numpy()], on=key, suffixes=("", "_first"))
        yield from zip(pairs["row"], pairs["row_first"], strict=True)


def _rejections(file: ParsedFile) -> Iterator[dict[str, object]]:
    for line, faults in sorted(file.faults.items()):
        columns = list(dict.fromkeys(column for fault in faults for column in fault.columns))
        yield {
            "partition_day": file.day,
            "file": file.name,
            "line": line,
            "column": ", ".join(columns) or None,
            "reason": "; ".join(fault.reason for fault in faults),
            "record": file.record(line),
        }


def _commonest(file: ParsedFile) -> list[str]:
    found: defaultdict[tuple[tuple[str, ...], str], list[tuple[int, Fault]]] = defaultdict(list)
    for line, faults in sorted(file.faults.items()):
        for fault in faults:
            found[fault.columns, fault.rule or fault.reason].append((line, fault))
    by_number = sorted(found.values(), key=len, reverse=True)
    return [
        f"{len(of_kind)} lines: {of_kind[0][1].reason} (line {of_kind[0][0]}: {file.record(of_kind[0][0])[:200]})"
        for of_kind in by_number[:_REASONS]
    ]
