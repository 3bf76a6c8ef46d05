"""Landed files: good rows go on typed, each bad line is set aside with its reason, and nothing is lost."""

import gzip
from collections import Counter
from datetime import date

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.ingestion.parsing import UnreadableFileError
from resources.ingestion.tables import LandedTable
from resources.ingestion.validation import REJECTED, Batch, Count, read_files
from resources.ingestion.values import typed
from resources.landing_files import file_name
from tests.meters import DAY, METERS, PRICES, READINGS, TABLES, Change, lines_of, packed, take, with_values

MALFORMED: list[tuple[LandedTable, Change, str | None, str]] = [
    (READINGS, with_values(pulses="abc"), "pulses", "abc is not a whole number"),
    (READINGS, with_values(pulses="15.5"), "pulses", "15.5 is not a whole number"),
    (READINGS, with_values(pulses="9" * 40), "pulses", "is not a whole number"),
    (READINGS, with_values(pulses="9" * 19), "pulses", "is not a whole number"),
    (READINGS, with_values(pulses="17.05"), "pulses", "17.05 is not a whole number"),
    (READINGS, with_values(pulses="1.7051e3"), "pulses", "1.7051e3 is not a whole number"),
    (READINGS, with_values(pulses="1.2E+03"), "pulses", "1.2E+03 is not a whole number"),
    (READINGS, with_values(pulses="1e99"), "pulses", "1e99 is not a whole number"),
    (READINGS, with_values(pulses="."), "pulses", ". is not a whole number"),
    (READINGS, with_values(pulses="-1"), "pulses", "-1 is not in 0..9999999"),
    (READINGS, with_values(pulses="NA"), "pulses", "is missing"),
    (READINGS, with_values(state=""), "state", "is missing"),
    (READINGS, with_values(state="guessed"), "state", "guessed is not one of measured, estimated"),
    (READINGS, with_values(meter="m1"), "meter", "m1 is not a meter's number like M001"),
    (READINGS, with_values(kilowatts="much"), "kilowatts", "much is not a number"),
    (READINGS, with_values(kilowatts="nan"), "kilowatts", "nan is not a number"),
    (READINGS, with_values(kilowatts="500.5"), "kilowatts", "500.5 is not in 0..500"),
    (READINGS, with_values(kilowatts="501"), "kilowatts", "501.0 is not in 0..500"),
    (READINGS, with_values(kilowatts="501", pulses="-1"), "kilowatts, pulses", "; pulses: -1 is not in"),
    (READINGS, with_values(read_at="06.02.2024 10:00"), "read_at", "is not an instant like"),
    (READINGS, with_values(read_at="2024-02-30T05:00:00Z"), "read_at", "2024-02-30T05:00:00Z is not an instant"),
    (READINGS, with_values(hour="4"), "read_at, hour", "are not the same hour"),
    (READINGS, with_values(month="2", day="31"), "year, month, day", "2024-2-31 is not a date"),
    (READINGS, with_values(month="13"), "year, month, day", "2024-13-6 is not a date"),
    (READINGS, with_values(year="NA"), "year", "is missing"),
    (READINGS, lambda *_: "2024,2,6,5", None, "has 4 fields where the header has 9"),
    (READINGS, with_values(read_at="2024-02-06T05:00:00Z,more"), None, "has 10 fields where the header has 9"),
    (READINGS, lambda *_: "", None, "is blank"),
    (READINGS, lambda *_: "   ", None, "is blank"),
    (READINGS, with_values(state="\udcffX"), None, "is not UTF-8"),
    (READINGS, with_values(state="I\x00H"), None, "holds a control character"),
    (READINGS, with_values(state='"measured'), None, "is not CSV"),
    (READINGS, lambda *_: ",".join(["x"] * 9), "year, month, day, hour", "year: x is not a whole number"),
    (PRICES, with_values(day="NA"), "day", "is missing"),
    (PRICES, with_values(day="2024-02-30"), "day", "2024-02-30 is not a date like 2013-01-31"),
    (METERS, with_values(installed="06.02.2024"), "installed", "06.02.2024 is not a date like 2013-01-31"),
    (METERS, with_values(place="x" * 61), "place", "… is not 1 to 40 characters long"),
    (METERS, with_values(place="Mitte "), "place", "without spaces around"),
]


@pytest.mark.parametrize(("table", "change", "column", "words"), MALFORMED)
def test_a_malformed_line_is_rejected_with_its_column_and_reason_and_its_neighbours_stay(
    table: LandedTable, change: Change, column: str | None, words: str
) -> None:
    header, *lines = lines_of(table)
    expected = take(table, packed([header, *lines[:5], *lines[6:]])).arrow
    bad = change(header, lines[5])

    batch = take(table, packed([header, *lines[:5], bad, *lines[6:]]))

    (rejected,) = batch.rejected.to_pylist()
    assert rejected["line"] == 7
    assert rejected["file"] == file_name(table.name, DAY if table.by else None)
    assert rejected["partition_day"] == (date.fromisoformat(DAY) if table.by else None)
    assert (rejected["column"] or "").startswith(column or "")
    assert (rejected["column"] is None) == (column is None)
    assert words in rejected["reason"]
    assert rejected["record"] == bad.replace("\udcff", "\\xff").replace("\x00", "\\x00")
    assert batch.arrow.equals(expected)


@pytest.mark.parametrize(
    ("number", "forms"),
    [
        ("1545", ["1545.0", "1545.", "1545.000", "+1545", "1.545e3", "1.545000000000000000e+03", "154500e-2", "01545"]),
        ("1200", ["1200.0", "1.2e+03", "1.2E3", "1.200E+03"]),
    ],
)
def test_a_whole_number_is_one_in_whatever_form_it_is_written(number: str, forms: list[str]) -> None:
    header, *lines = lines_of(READINGS)
    expected = take(READINGS, packed([header, with_values(pulses=number)(header, lines[0]), *lines[1:]])).arrow

    for form in forms:
        changed = [with_values(pulses=form)(header, lines[0]), *lines[1:]]
        assert take(READINGS, packed([header, *changed])).arrow.equals(expected), form


def test_all_numbers_written_as_pandas_writes_a_column_with_a_gap_make_no_difference() -> None:
    header, *lines = lines_of(READINGS)
    numbers = [
        name
        for name, kind in zip(READINGS.arrow_schema().names, READINGS.arrow_schema().types, strict=True)
        if kind == pyarrow.int64()
    ]
    changed = []
    for line in lines:
        fields = dict(zip(header.split(","), line.split(","), strict=True))
        changed.append(",".join(f"{v}.0" if k in numbers and v != "NA" else v for k, v in fields.items()))

    assert take(READINGS, packed([header, *changed])).arrow.equals(take(READINGS, packed([header, *lines])).arrow)


@pytest.mark.parametrize("number", [9007199254740993, 999999999999999999, 2**63 - 1, -(2**63)])
def test_no_digit_of_a_whole_number_is_lost(number: int) -> None:
    text = pyarrow.array([f"{number}.0", None, str(number)])

    values, unparsable = typed(text, pyarrow.int64())

    assert values.to_pylist() == [number, None, number]
    assert not len(list(unparsable))


def test_the_last_line_of_a_plain_file_that_is_cut_short_is_rejected() -> None:
    header, *lines = lines_of(METERS)
    cut = "\n".join([header, *lines])[:-3].encode()

    batch = read_files(METERS, [("meters.csv", None, cut)])

    assert [row["line"] for row in batch.rejected.to_pylist()] == [len(lines) + 1]
    assert "may be cut short" in batch.rejected["reason"][0].as_py()
    assert len(batch.rows) == len(lines) - 1


def test_the_later_row_of_a_key_is_rejected_and_names_the_first() -> None:
    header, *lines = lines_of(READINGS)

    batch = take(READINGS, packed([header, *lines, lines[3]]))

    (rejected,) = batch.rejected.to_pylist()
    assert rejected["line"] == len(lines) + 2
    assert rejected["reason"] == "meter, read_at: line 5 has the same"
    assert len(batch.rows) == len(lines)


def test_a_good_row_stays_when_the_earlier_row_of_its_key_is_bad() -> None:
    header, *lines = lines_of(READINGS)
    bad = with_values(kilowatts="1048.36058")(header, lines[0])

    batch = take(READINGS, packed([header, bad, *lines]))

    assert batch.rejected["line"].to_pylist() == [2]
    assert len(batch.rows) == len(lines)


def test_an_unreadable_file_holds_no_other_back() -> None:
    good = packed(lines_of(READINGS))
    batch = read_files(READINGS, [(f"{DAY}.csv.gz", DAY, good), ("2024-02-07.csv.gz", "2024-02-07", good[:50])])

    assert batch.counts == {DAY: Count(rows=48, rejected=0)}
    assert [error.file for error in batch.unreadable] == ["2024-02-07.csv.gz"]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_header_alone_is_a_file_without_rows(table: LandedTable) -> None:
    batch = take(table, packed(lines_of(table)[:1]))

    assert list(batch.counts.values()) == [Count(rows=0, rejected=0)]
    assert batch.arrow.schema == table.arrow_schema()
    assert batch.rejected.schema == REJECTED


def test_column_order_quotes_line_ends_and_a_byte_order_mark_make_no_difference() -> None:
    header, *lines = (line for line in lines_of(METERS) if '"' not in line)
    turned = [",".join(reversed(line.split(","))) for line in lines]
    quoted = "\ufeffplace,capacity,installed,meter\r\n" + "\r\n".join(
        '"' + line.replace(",", '","') + '"' for line in turned
    )

    assert take(METERS, gzip.compress(quoted.encode())).arrow.equals(take(METERS, packed([header, *lines])).arrow)


MUTATIONS = ["drop a field", "garbage", "garbage field", "duplicate", "blank", "cut", "swap"]


@settings(max_examples=60)
@given(data=st.data())
def test_nothing_is_lost_whatever_happens_to_the_lines(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from([READINGS, PRICES]))
    header, *lines = lines_of(table)
    untouched = Counter(lines)
    mutated: list[str] = list(lines)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(lines) - 1))
        line, fields = lines[place], lines[place].split(",")
        field = data.draw(st.integers(0, len(fields) - 1))
        # No line ends: a garbled line is still one line. "\r" at the end is part of the line end.
        garbage = data.draw(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=12))
        match data.draw(st.sampled_from(MUTATIONS)):
            case "drop a field":
                changed = [",".join(fields[:field] + fields[field + 1 :])]
            case "garbage":
                changed = [garbage]
            case "garbage field":
                changed = [",".join([*fields[:field], garbage, *fields[field + 1 :]])]
            case "duplicate":
                changed = [line, line]
            case "blank":
                changed = [line, ""]
            case "cut":
                changed = [line[: data.draw(st.integers(0, len(line)))]]
            case _:
                changed = [",".join([*fields[field:], *fields[:field]])]
        if mutated[place] == line:
            mutated[place] = "\n".join(changed)
            if line not in changed:
                untouched[line] -= 1
    text = "\n".join([header, *mutated]) + "\n"

    try:
        batch = take(table, gzip.compress(text.encode(), 1))
    except UnreadableFileError as error:
        assert "and the file is for" in error.cause  # noqa: PT017
        return

    data_lines = text.count("\n") - 1
    assert len(batch.rows) + batch.rejected.num_rows == data_lines
    assert batch.counts == {DAY: Count(len(batch.rows), batch.rejected.num_rows)}
    assert len(set(batch.rejected["line"].to_pylist())) == batch.rejected.num_rows
    clean = take(table, packed([header, *untouched.elements()]))
    assert keys(table, clean) <= keys(table, batch)


def keys(table: LandedTable, batch: Batch) -> set[tuple[object, ...]]:
    return set(batch.rows[table.pandera_schema().unique].itertuples(index=False, name=None))


def test_an_empty_batch_is_an_empty_table() -> None:
    assert read_files(READINGS, []).arrow.equals(READINGS.arrow_schema().empty_table())


def test_a_key_without_the_day_is_that_of_a_row_within_its_day() -> None:
    files = [(f"{day}.csv.gz", day, packed(lines_of(PRICES, day))) for day in ("2024-02-06", "2024-02-07")]

    batch = read_files(PRICES, files)

    assert batch.rejected.num_rows == 0
    assert len(batch.rows) == 48


def test_a_column_of_a_type_that_no_file_holds_is_named_by_its_type_and_those_that_there_are() -> None:
    with pytest.raises(TypeError, match=r"bool is not read from files; declare the column as one of string, int64"):
        typed(pyarrow.array(["true"]), pyarrow.bool_())
