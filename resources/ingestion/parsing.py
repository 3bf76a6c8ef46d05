"""One landed file: from its bytes to typed lines, with the faults of each line; or why it cannot be taken at all.

A record is one line of the file. So an open quote spoils its own line and not the rest, and every line after the
header is accounted for.
"""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce

import numpy as np
import pyarrow
import pyarrow.compute as pc

from resources.ingestion.tables import LandedTable
from resources.ingestion.values import FORMS, typed

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
# What makes a line worth a closer look: quotes, control characters, bytes that are not UTF-8 (as surrogates).
_UNUSUAL = re.compile('["\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]')


class UnreadableFileError(ValueError):
    """A landed file that cannot be taken as a whole; `file` names it and `cause` says why."""

    def __init__(self, file: str, cause: str) -> None:
        super().__init__(f"{file}: {cause}. Have the feed re-send it; the table keeps what it had.")
        self.file = file
        self.cause = cause


@dataclass(frozen=True)
class Fault:
    """Why a line is turned away, and the columns to blame; none of them when it is the whole line.

    rule: the part of the reason that is the same on other lines; by default all of it.
    """

    columns: tuple[str, ...]
    reason: str
    rule: str = ""


@dataclass(frozen=True)
class ParsedFile:
    """One file.

    texts: every line after the header, the first of which is line 2.
    rows: the lines that have as many fields as the header, typed as declared; null where a value is at fault.
    lines: the line number of each of `rows`.
    faults: by line number, those found so far.
    """

    name: str
    partition: str | None
    day: date | None
    texts: list[str]
    rows: pyarrow.Table
    lines: list[int]
    faults: dict[int, list[Fault]]

    def record(self, line: int) -> str:
        """The line as it came; bytes that are no text, or none that a database takes, as \\xNN."""
        text = self.texts[line - 2].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)

    def blame(self, line: int, fault: Fault) -> None:
        """Add a fault, unless one of its columns has another already: what follows from that is no news."""
        known = self.faults.setdefault(line, [])
        if not {column for other in known for column in other.columns} & set(fault.columns):
            known.append(fault)


def parse(table: LandedTable, name: str, partition: str | None, data: bytes) -> ParsedFile:
    """Split and type a landed file; whether values keep to the schema's rules is not looked at here.

    Raises:
        UnreadableFileError: damaged gzip, no content, no proper header, a name that says no day, another day inside.
        TypeError: the schema declares a column of a type that is not read from files.
    """
    day, schema = _day(table, name, partition), table.arrow_schema()
    header, texts, is_whole = _lines(name, data)
    # Columns that the file does not hold: the day is its name's.
    added = {table.day} - {*table.dated_by}
    _check_header(name, header, [column for column in schema.names if column not in added])
    faults: dict[int, list[Fault]] = {}
    records, lines = [], []
    for line, text in enumerate(texts, start=2):
        fields = _fields(text)
        if isinstance(fields, str):
            faults[line] = [Fault((), fields)]
        elif len(fields) != len(header):
            faults[line] = [Fault((), f"has {len(fields)} fields where the header has {len(header)}")]
        elif not is_whole and line == len(texts) + 1 and not text.endswith('"'):
            faults[line] = [Fault((), "has no line end, so its last value may be cut short")]
        else:
            records.append(fields)
            lines.append(line)

    by_column = dict(zip(header, zip(*records, strict=True) if records else [()] * len(header), strict=True))
    arrays = {}
    for field in schema:
        if field.name in added:
            arrays[field.name] = pyarrow.repeat(pyarrow.scalar(day, field.type), len(records))
            continue
        arrays[field.name], unparsable = typed(pyarrow.array(by_column[field.name], pyarrow.string()), field.type)
        for row in unparsable:
            rule = FORMS[field.type][1]
            reason = f"{field.name}: {abbreviated(by_column[field.name][row])} {rule}"
            faults.setdefault(lines[row], []).append(Fault((field.name,), reason, rule))
    file = ParsedFile(name, partition, day, texts, pyarrow.table(arrays), lines, faults)
    if day and table.dated_by:
        _check_days(file, day, table.dated_by)
    return file


def _day(table: LandedTable, name: str, partition: str | None) -> date | None:
    if table.by is None:
        if partition is not None:
            raise UnreadableFileError(name, f"{table.name} lands as one file, {table.name}.csv, not by partition")
        return None
    try:
        day = date.fromisoformat(partition or "")
    except ValueError:
        day = None
    if day is None or str(day) != partition:
        raise UnreadableFileError(name, f"{table.name} lands by day, as 2013-01-31.csv.gz, and this name says no day")
    return day


def _lines(name: str, data: bytes) -> tuple[list[str], list[str], bool]:
    """The header's fields, the lines after it, and whether the last of them is known to be whole."""
    if not data:
        raise UnreadableFileError(name, "the file is empty")
    if name.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableFileError(name, f"its gzip is damaged or cut short ({error})") from error
    # Gzip has a length and a checksum. Of other files a transfer that broke off leaves a part that looks like a file.
    is_whole = name.endswith(".gz") or data.endswith(b"\n")
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").removesuffix("\n")
    if not text:
        raise UnreadableFileError(name, "the file is empty")
    first, *rest = [line.removesuffix("\r") for line in text.split("\n")]
    fields = _fields(first)
    return ([first] if isinstance(fields, str) else fields), rest, is_whole


def _fields(text: str) -> list[str] | str:
    """The fields of a line, or what is wrong with it."""
    if not text.strip():
        return "is blank"
    unusual = set(_UNUSUAL.findall(text))
    if not unusual:
        return text.split(",")
    if any("\ud800" <= character <= "\udfff" for character in unusual):
        return "is not UTF-8"
    if unusual != {'"'}:
        return "holds a control character"
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        return f"is not CSV: {error}"


def _check_header(name: str, header: list[str], columns: list[str]) -> None:
    repeated = [column for column, times in Counter(header).items() if times > 1]
    missing = [column for column in columns if column not in header]
    unknown = [column for column in header if column not in columns]
    if len(missing) == len(columns):
        raise UnreadableFileError(name, f"it has no header: line 1 should name {', '.join(columns)}")
    if missing:
        raise UnreadableFileError(name, f"its header lacks {', '.join(missing)}")
    if repeated:
        raise UnreadableFileError(name, f"its header has {', '.join(repeated)} more than once")
    if unknown:
        raise UnreadableFileError(
            name, f"its header has {', '.join(unknown)}, which the schema does not know; declare it or drop it"
        )


def _check_days(file: ParsedFile, day: date, columns: Sequence[str]) -> None:
    """Every row is of the file's day, by one column of dates or by year, month and day; else it is the file that is
    wrong, not the row.
    """
    parts = [file.rows[column] for column in columns]
    wanted = [day] if len(columns) == 1 else [day.year, day.month, day.day]
    # Null where a row lacks a part: for that the schema has a word of its own.
    pairs = zip(parts, map(pyarrow.scalar, wanted), strict=True)
    others = [pc.call_function("not_equal", [part, value]) for part, value in pairs]
    other = reduce(lambda one, two: pc.call_function("or", [one, two]), others)
    for row in np.flatnonzero(other.fill_null(False).to_numpy()):
        values = [part[int(row)].as_py() for part in parts]
        try:
            found = values[0] if len(columns) == 1 else date(*values)
        except (ValueError, OverflowError):
            shown = "-".join(str(value) for value in values)
            reason = f"{', '.join(columns)}: {shown} is not a date"
            file.blame(file.lines[row], Fault(tuple(columns), reason, "is not a date"))
        else:
            raise UnreadableFileError(file.name, f"line {file.lines[row]} is of {found}, and the file is for {day}")


def abbreviated(value: str) -> str:
    """The value, short enough for a message."""
    return value if len(value) <= 60 else f"{value[:60]}…"
