"""A landed file that cannot be taken as a whole says which it is, why, and what to do."""

import gzip
from collections.abc import Callable

import pytest

from assets.flights import replay
from assets.flights.tables import AIRLINES, FLIGHTS
from resources.ingestion.parsing import UnreadableFileError, parse

DAY = "2013-01-01"
HEADER, *LINES = replay.record("flights").decode().splitlines()[:31]


def packed(*lines: str) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)


GOOD = packed(HEADER, *LINES)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "the file is empty"),
        (packed(), "the file is empty"),
        (packed(""), "the file is empty"),
        (b"year,month", "its gzip is damaged or cut short"),
        (GOOD[:-20], "its gzip is damaged or cut short"),
        (GOOD[:40] + b"\x00" * 60, "its gzip is damaged or cut short"),
        (packed(*LINES), "it has no header: line 1 should name year, month"),
        (packed("", HEADER, *LINES), "it has no header"),
        (packed(*(line.split(",", 1)[1] for line in [HEADER, *LINES])), "its header lacks year"),
        (packed(f"{HEADER},year", *(f"{line},2013" for line in LINES)), "its header has year more than once"),
        (packed(f"{HEADER},gate", *(f"{line},B4" for line in LINES)), "its header has gate, which the schema does not"),
        (
            packed(HEADER, *LINES[:3], LINES[3].replace("2013,1,1,", "2013,1,2,"), *LINES[4:]),
            "line 5 is of 2013-01-02, and the file is for 2013-01-01",
        ),
    ],
)
def test_a_file_that_cannot_be_taken_names_itself_the_cause_and_the_next_step(data: bytes, cause: str) -> None:
    with pytest.raises(UnreadableFileError) as raised:
        parse(FLIGHTS, f"{DAY}.csv.gz", DAY, data)
    assert cause in raised.value.cause
    assert str(raised.value).startswith(f"{DAY}.csv.gz: ")
    assert str(raised.value).endswith("Have the feed re-send it; the table keeps what it had.")


@pytest.mark.parametrize("partition", [None, "yesterday", "20130101", "2013-02-30"])
def test_a_daily_file_whose_name_says_no_day_cannot_be_taken(partition: str | None) -> None:
    with pytest.raises(UnreadableFileError, match="this name says no day"):
        parse(FLIGHTS, "odd.csv.gz", partition, GOOD)


def test_a_reference_table_that_lands_by_partition_cannot_be_taken() -> None:
    with pytest.raises(UnreadableFileError, match=r"airlines lands as one file, airlines\.csv"):
        parse(AIRLINES, f"{DAY}.csv.gz", DAY, GOOD)


@pytest.mark.parametrize("spoil", [lambda line: f'"{line}', lambda line: line[:30], lambda _: ""])
def test_a_spoilt_line_keeps_its_text_and_the_others_their_numbers(spoil: Callable[[str], str]) -> None:
    file = parse(FLIGHTS, f"{DAY}.csv.gz", DAY, packed(HEADER, *LINES[:4], spoil(LINES[4]), *LINES[5:]))

    assert list(file.faults) == [6]
    assert file.record(6) == spoil(LINES[4])
    assert file.lines == [n for n in range(2, len(LINES) + 2) if n != 6]
