"""Feeds as senders' programs spoil them: the same rows in another encoding, separator, line end, number form or
archive, cut short, or with a header too many.
"""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from pydantic import SecretStr

from resources.ingestion.storing import store
from resources.ingestion.validation import read_files
from resources.landing_files import file_name
from resources.warehouse import Warehouse
from tests.meters import DAY, TABLES, lines_of

TABLE = {table.name: table for table in TABLES}
_NUMBER = re.compile(r"(?<=,)([0-9]+)(?=,)")


def text_of(table: str) -> str:
    """Header and lines, of `DAY` where the table lands by day; with letters beyond ASCII and quotes."""
    return "".join(f"{line}\n" for line in lines_of(TABLE[table]))


def _number_form(form: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: _NUMBER.sub(lambda found: form(found[1]), text)


def _exponent(digits: str) -> str:
    return f"{digits[0]}.{digits[1:] or 0}e{len(digits) - 1}"


def _with_line(place: int) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = text.splitlines(keepends=True)
        return "".join([*lines[:place], lines[0], *lines[place:]])

    return change


IN_TEXT: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    **{f"separator {sign!r}": lambda text, sign=sign: text.replace(",", sign) for sign in (";", "\t", "|", ", ")},
    **{f"line end {end!r}": lambda text, end=end: text.replace("\n", end) for end in ("\r\n", "\r", "\n\r", "\u2028")},
    "decimal point": _number_form(lambda digits: f"{digits}.0"),
    "exponent": _number_form(_exponent),
    "leading zero": _number_form(lambda digits: f"0{digits}"),
    "plus": _number_form(lambda digits: f"+{digits}"),
    "thousands": _number_form(lambda digits: f'"{int(digits):,}"'),
    "decimal comma": lambda text: re.sub(r"(?<=,)([0-9]+)\.([0-9]+)(?=,)", r'"\1,\2"', text),
    "underscores": _number_form(lambda digits: "_".join(digits)),
    "other digits": _number_form(lambda digits: digits.translate({48 + n: 0xFF10 + n for n in range(10)})),
    "header twice": _with_line(1),
    "header in between": _with_line(7),
    "header capitals": lambda text: text.replace(text.splitlines()[0], text.splitlines()[0].upper()),
    "header quoted": lambda text: text.replace(
        text.splitlines()[0], '"' + text.splitlines()[0].replace(",", '","') + '"', 1
    ),
    "a column twice": lambda text: re.sub(r"(?m)^([^,\n]*)(.*)$", r"\1\2,\1", text),
    "comma at the end": lambda text: text.replace("\n", ",\n"),
    "space at the end": lambda text: text.replace("\n", " \n"),
    "blank line first": lambda text: f"\n{text}",
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "twice": lambda text: text * 2,
    "no header": lambda text: text.partition("\n")[2],
    "header alone": lambda text: text.partition("\n")[0] + "\n",
    "no last line end": lambda text: text.removesuffix("\n"),
    "byte order mark twice": lambda text: f"\ufeff\ufeff{text}",
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "cp437", "cp500")
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "gzip of gzip": lambda data: gzip.compress(gzip.compress(data, 1), 1),
    "no gzip": lambda data: data,
    "gzip in two members": lambda data: gzip.compress(data[:500], 1) + gzip.compress(data[500:], 1),
    "gzip and more": lambda data: gzip.compress(data, 1) + b"more",
    "gzip and zeros": lambda data: gzip.compress(data, 1) + bytes(100),
}


@st.composite
def feeds(draw: st.DrawFn) -> tuple[str, bytes]:
    """A table, and what was sent for it."""
    table = draw(st.sampled_from([*TABLE]))
    text = text_of(table)
    for name in draw(st.lists(st.sampled_from([*IN_TEXT]), min_size=1, max_size=2)):
        note(name)
        text = IN_TEXT[name](text)
    encoding = draw(st.sampled_from([*ENCODINGS, "utf-8", "utf-8", "utf-8"]))
    note(encoding)
    data = text.encode(encoding, "replace")
    usual = "gzip" if TABLE[table].by else "no gzip"
    how = draw(st.sampled_from([*PACKED, *[usual] * 6]))
    note(how)
    data = PACKED[how](data)
    if draw(st.integers(0, 3)) == 0:
        cut = draw(st.integers(0, len(data)))
        note(f"cut at {cut}")
        data = data[:cut]
    return table, data


class Receiver:
    """The tables on a DuckDB file of their own, and what each must hold."""

    def __init__(self, folder: Path) -> None:
        self.warehouse = Warehouse(SecretStr(f"duckdb:///{folder}/warehouse.duckdb"))
        self.sent: dict[str, set[tuple[Any, ...]]] = {}
        self.held: dict[str, set[tuple[Any, ...]]] = {}
        for table in TABLE:
            data = text_of(table).encode()
            self.sent[table] = set(self._receive(table, gzip.compress(data) if TABLE[table].by else data))
            self.held[table] = self.rows(table)
            assert self.held[table] == self.sent[table]
            assert len(self.sent[table]) == data.count(b"\n") - 1

    def rows(self, table: str) -> set[tuple[Any, ...]]:
        return {tuple(row.values()) for row in self.warehouse.read(f"raw.{table}").to_pylist()}

    def _receive(self, table: str, data: bytes) -> list[tuple[Any, ...]]:
        """The rows that were stored; nothing is changed where the feed was refused."""
        day = DAY if TABLE[table].by else None
        name = file_name(table, day)
        batch = read_files(TABLE[table], [(name, day, data)])
        if batch.unreadable:
            (error,) = batch.unreadable
            assert re.fullmatch(
                rf"{name}: [^\n]+\. Have the feed re-send it; the table keeps what it had\.", str(error)
            )
            assert not batch.counts
            return []
        rows = [tuple(row.values()) for row in batch.arrow.to_pylist()]
        for rejected in batch.rejected.to_pylist():
            assert rejected["file"] == name
            assert rejected["line"] >= 2
            assert rejected["reason"]
        assert batch.counts[day].rows == len(rows)
        assert batch.counts[day].rejected == batch.rejected.num_rows
        passed = store(self.warehouse, TABLE[table], batch, [day])
        if passed.refused:
            assert all(passed.refused[day])
            return []
        stored = self.warehouse.read(f"raw_rejected.{table}").to_pylist()
        assert sorted(stored, key=lambda row: row["line"]) == batch.rejected.to_pylist()
        return rows

    def check(self, table: str, data: bytes) -> bool:
        """Send it: what is stored is what was meant, or the table holds what it held. Whether it was stored."""
        rows = self._receive(table, data)
        assert set(rows) <= self.sent[table]
        self.held[table] = set(rows) or self.held[table]
        assert self.rows(table) == self.held[table]
        return bool(rows)
