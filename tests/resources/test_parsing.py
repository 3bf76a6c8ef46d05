"""A landed file that cannot be taken as a whole says which it is, why, and what to do."""

from collections.abc import Callable

import pytest

from resources.ingestion.assets import landed
from resources.ingestion.parsing import UnreadableFileError, parse
from resources.ingestion.tables import LandedTable
from tests import meters
from tests.meters import METERS, PRICES, READINGS, lines_of

DAY = "2024-01-01"
HEADER, *LINES = lines_of(READINGS, DAY)


def packed(*lines: str) -> bytes:
    return meters.packed(lines)


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
        (packed(f"{HEADER},year", *(f"{line},2024" for line in LINES)), "its header has year more than once"),
        (packed(f"{HEADER},gate", *(f"{line},B4" for line in LINES)), "its header has gate, which the schema does not"),
        (
            packed(HEADER, *LINES[:3], LINES[3].replace("2024,1,1,", "2024,1,2,"), *LINES[4:]),
            "line 5 is of 2024-01-02, and the file is for 2024-01-01",
        ),
    ],
)
def test_a_file_that_cannot_be_taken_names_itself_the_cause_and_the_next_step(data: bytes, cause: str) -> None:
    with pytest.raises(UnreadableFileError) as raised:
        parse(READINGS, f"{DAY}.csv.gz", DAY, data)
    assert cause in raised.value.cause
    assert str(raised.value).startswith(f"{DAY}.csv.gz: ")
    assert str(raised.value).endswith("Have the feed re-send it; the table keeps what it had.")


@pytest.mark.parametrize("partition", [None, "yesterday", "20240101", "2024-02-30"])
def test_a_daily_file_whose_name_says_no_day_cannot_be_taken(partition: str | None) -> None:
    with pytest.raises(UnreadableFileError, match="this name says no day"):
        parse(READINGS, "odd.csv.gz", partition, GOOD)


def test_a_reference_table_that_lands_by_partition_cannot_be_taken() -> None:
    with pytest.raises(UnreadableFileError, match=r"meters lands as one file, meters\.csv"):
        parse(METERS, f"{DAY}.csv.gz", DAY, GOOD)


@pytest.mark.parametrize("spoil", [lambda line: f'"{line}', lambda line: line[:30], lambda _: ""])
def test_a_spoilt_line_keeps_its_text_and_the_others_their_numbers(spoil: Callable[[str], str]) -> None:
    file = parse(READINGS, f"{DAY}.csv.gz", DAY, packed(HEADER, *LINES[:4], spoil(LINES[4]), *LINES[5:]))

    assert list(file.faults) == [6]
    assert file.record(6) == spoil(LINES[4])
    assert file.lines == [n for n in range(2, len(LINES) + 2) if n != 6]


def test_a_file_whose_column_of_dates_says_another_day_cannot_be_taken() -> None:
    header, *lines = lines_of(PRICES, DAY)
    later = lines[2].replace(DAY, "2024-01-02")

    with pytest.raises(UnreadableFileError, match="line 4 is of 2024-01-02, and the file is for 2024-01-01"):
        parse(PRICES, f"{DAY}.csv.gz", DAY, packed(header, *lines[:2], later, *lines[3:]))


def test_a_table_that_is_declared_by_halves_is_refused() -> None:
    with pytest.raises(ValueError, match="sales: a table by day takes both, `by` and `day`"):
        LandedTable("sales", "tests.meter_schemas:prices", "", by=meters.DAYS)
    with pytest.raises(ValueError, match="sales is dated by a, b: name one column of dates, or those of year"):
        LandedTable("sales", "tests.meter_schemas:prices", "", by=meters.DAYS, day="day", dated_by=("a", "b"))


@pytest.mark.parametrize("schema", ["tests.no_module:prices", "tests.meter_schemas:no_schema", "tests.meter_schemas"])
def test_a_schema_that_is_nowhere_is_said_when_definitions_load(schema: str) -> None:
    with pytest.raises(LookupError, match=f"sales: its schema is not at '{schema}'; name it as <module>:<name>"):
        landed(LandedTable("sales", schema, ""))
