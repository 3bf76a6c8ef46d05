"""One landed file: from its bytes to typed lines, with the faults of each line; or why it cannot be taken at all.

A record is one line of the file. So an open quote spoils its own line and not the rest, and every line after the
header is accounted for.
"""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute as pc

from assets.flights.partitions import DAY_COLUMNS
from assets.flights.schemas import SCHEMAS, arrow_schema

_MISSING = pyarrow.array(["", "NA"])

_DIGITS = "^-?[0-9]{1,18}$"
# As pandas writes a column of whole numbers of which one is missing.
_WITHOUT_FRACTION = r"^(-?[0-9]{1,18})\.0*$"
_WHOLE = re.compile(r"([+-]?)([0-9]{1,40})(?:\.([0-9]{0,40}))?(?:([eE])([+-]?)([0-9]{1,2}))?")

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
# What makes a line worth a closer look: quotes, control characters, bytes that are not UTF-8 (as surrogates).
_UNUSUAL = re.compile('["\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]')
_FORMS = {
    pyarrow.int64(): (_DIGITS, "is not a whole number"),
    pyarrow.float64(): (r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?$", "is not a number"),
    pyarrow.timestamp("us", tz="UTC"): (
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        "is not an instant like 2013-01-31T09:00:00Z",
    ),
}


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


def parse(table: str, name: str, partition: str | None, data: bytes) -> ParsedFile:
    """Split and type a landed file; whether values keep to the schema's rules is not looked at here.

    Raises:
        UnreadableFileError: damaged gzip, no content, no proper header, a name that says no day, another day inside.
    """
    day = _day(table, name, partition)
    header, texts, is_whole = _lines(name, data)
    _check_header(name, header, [c for c in SCHEMAS[table].columns if c != DAY_COLUMNS.get(table)])
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
    for field in arrow_schema(table):
        if field.name == DAY_COLUMNS.get(table):
            arrays[field.name] = pyarrow.repeat(pyarrow.scalar(day, field.type), len(records))
            continue
        arrays[field.name], unparsable = _typed(pyarrow.array(by_column[field.name], pyarrow.string()), field.type)
        for row in unparsable:
            rule = _FORMS[field.type][1]
            reason = f"{field.name}: {abbreviated(by_column[field.name][row])} {rule}"
            faults.setdefault(lines[row], []).append(Fault((field.name,), reason, rule))
    file = ParsedFile(name, partition, day, texts, pyarrow.table(arrays), lines, faults)
    if day:
        _check_days(file, day)
    return file


def _day(table: str, name: str, partition: str | None) -> date | None:
    if table not in DAY_COLUMNS:
        if partition is not None:
            raise UnreadableFileError(name, f"{table} lands as one file, {table}.csv, not by partition")
        return None
    try:
        day = date.fromisoformat(partition or "")
    except ValueError:
        day = None
    if day is None or str(day) != partition:
        raise UnreadableFileError(name, f"{table} lands by day, as 2013-01-31.csv.gz, and this name says no day")
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


def _typed(text: pyarrow.Array, kind: pyarrow.DataType) -> tuple[pyarrow.Array, Iterable[int]]:
    """The values, null where missing or unparsable, and the places of the unparsable ones."""
    text = pc.if_else(pc.is_in(text, _MISSING), None, text)
    if kind not in _FORMS:
        return text, ()
    if kind == pyarrow.int64():
        well_formed = _whole_numbers(text)
    else:
        well_formed = pc.if_else(pc.match_substring_regex(text, _FORMS[kind][0]), text, None)
    if pyarrow.types.is_timestamp(kind):
        # Not pyarrow's strptime, which reads February 30 as March 2; nor its cast, which stops at the first bad one.
        instants = pd.to_datetime(well_formed.to_pandas(), format="%Y-%m-%dT%H:%M:%SZ", errors="coerce", utc=True)
        values = pyarrow.array(instants, kind, from_pandas=True)
    else:
        values = well_formed.cast(kind)
    return values, np.flatnonzero(pc.and_(text.is_valid(), values.is_null()).to_numpy(zero_copy_only=False))


def _whole_numbers(text: pyarrow.Array) -> pyarrow.Array:
    """The digits of whole numbers, also of those in another form, such as `17.0`; null for all else."""
    if pc.all(pc.match_substring_regex(text, _DIGITS)).as_py() is not False:
        return text
    text = pc.replace_substring_regex(text, _WITHOUT_FRACTION, r"\1")
    plain = pc.match_substring_regex(text, _DIGITS)
    others = pc.unique(text.filter(pc.invert(plain))).drop_null().to_pylist()
    digits = {other: str(number) for other in others if (number := _whole_number(other)) is not None}
    found = pc.index_in(text, pyarrow.array([*digits], pyarrow.string()))
    return pc.if_else(plain, text, pyarrow.array([*digits.values()], pyarrow.string()).take(found))


def _whole_number(text: str) -> int | None:
    """The whole number of 64 bits that a text such as `17.0`, `1.70e1` or `1e+05` stands for; None where it does not.

    Not by way of a float, which has fifteen digits. A spreadsheet writes 123456789012 as `1.23457E+11`: where an `E+`
    asks for more digits than are there, they are not known.
    """
    if not (form := _WHOLE.fullmatch(text)):
        return None
    sign, digits, fraction, letter, plus, exponent = form.groups("")
    shift = int(f"{plus}{exponent}" or 0) - len(fraction)
    if shift > 0 and letter + plus == "E+":
        return None
    number = int(digits + fraction)
    if shift < 0:
        number, lost = divmod(number, 10**-shift)
        if lost:
            return None
    else:
        number *= 10**shift
    number = -number if sign == "-" else number
    return number if -(2**63) <= number < 2**63 else None


def _check_days(file: ParsedFile, day: date) -> None:
    """Every row's year, month and day are the partition's; else it is the file that is wrong, not the row."""
    year, month, of_month = (file.rows[part] for part in ("year", "month", "day"))
    same = pc.and_(pc.equal(year, day.year), pc.and_(pc.equal(month, day.month), pc.equal(of_month, day.day)))
    for row in np.flatnonzero(pc.invert(same).fill_null(False).to_numpy()):
        parts = [part[int(row)].as_py() for part in (year, month, of_month)]
        try:
            found = date(*parts)
        except (ValueError, OverflowError):
            shown = "-".join(str(part) for part in parts)
            file.blame(
                file.lines[row],
                Fault(("year", "month", "day"), f"year, month, day: {shown} is not a date", "is not a date"),
            )
        else:
            raise UnreadableFileError(file.name, f"line {file.lines[row]} is of {found}, and the file is for {day}")


def abbreviated(value: str) -> str:
    """The value, short enough for a message."""
    return value if len(value) <= 60 else f"{value[:60]}…"
