"""The batch: good rows go on typed, each bad line is kept aside with its reason, and nothing is lost."""

import gzip
from collections import Counter
from collections.abc import Callable
from datetime import date
from functools import cache

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.flights import replay
from assets.flights.tables import TABLES
from resources.ingestion.parsing import UnreadableFileError
from resources.ingestion.validation import REJECTED, Batch, Count, read_files
from resources.ingestion.values import typed

DAY = "2013-02-12"
TABLE = {table.name: table for table in TABLES}


@cache
def lines_of(table: str) -> tuple[str, ...]:
    """Header and the first 30 lines of the table's file, of `DAY` where it lands by day."""
    header, *lines = replay.record(table).decode().splitlines()
    year, month, day = (header.split(",").index(c) if c in header.split(",") else -1 for c in ("year", "month", "day"))
    if day >= 0:
        lines = [s for s in lines if [s.split(",")[i] for i in (year, month, day)] == ["2013", "2", "12"]]
    clean = [line for line in lines if "1048.36058" not in line]
    return header, *clean[:30]


def packed(lines: list[str] | tuple[str, ...]) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), 1)


def take(table: str, data: bytes) -> Batch:
    """The batch of one file; what makes it unreadable is raised."""
    daily = table in ("flights", "weather")
    name = f"{DAY}.csv.gz" if daily else f"{table}.csv"
    batch = read_files(TABLE[table], [(name, DAY if daily else None, data if daily else gzip.decompress(data))])
    for error in batch.unreadable:
        raise error
    return batch


def with_values(**values: str) -> Callable[[str, str], str]:
    def change(header: str, line: str) -> str:
        fields = dict(zip(header.split(","), line.split(","), strict=True))
        return ",".join((fields | values).values())

    return change


def raw(text: str) -> Callable[[str, str], str]:
    return lambda *_: text


MALFORMED = [
    ("flights", with_values(sched_dep_time="abc"), "sched_dep_time", "abc is not a whole number"),
    ("flights", with_values(flight="15.5"), "flight", "15.5 is not a whole number"),
    ("flights", with_values(flight="9" * 40), "flight", "is not a whole number"),
    ("flights", with_values(flight="9" * 19), "flight", "is not a whole number"),
    ("flights", with_values(flight="17.05"), "flight", "17.05 is not a whole number"),
    ("flights", with_values(flight="1.7051e3"), "flight", "1.7051e3 is not a whole number"),
    ("flights", with_values(flight="1.2E+03"), "flight", "1.2E+03 is not a whole number"),
    ("flights", with_values(flight="1e99"), "flight", "1e99 is not a whole number"),
    ("flights", with_values(flight="."), "flight", ". is not a whole number"),
    ("flights", with_values(flight="0"), "flight", "0 is not in 1..9999"),
    ("flights", with_values(sched_dep_time="1275"), "sched_dep_time", "1275 is not a time of day as HHMM"),
    ("flights", with_values(dep_time="2460"), "dep_time", "2460 is not a time of day as HHMM"),
    ("flights", with_values(sched_dep_time="NA"), "sched_dep_time", "is missing"),
    ("flights", with_values(dest=""), "dest", "is missing"),
    ("flights", with_values(origin="BOS"), "origin", "BOS is not one of EWR, JFK, LGA"),
    ("flights", with_values(carrier="united"), "carrier", "united is not a carrier code"),
    ("flights", with_values(tailnum="N-1"), "tailnum", "N-1 is not a tail number"),
    ("flights", with_values(distance="-5"), "distance", "-5 is not in 1..12000"),
    ("flights", with_values(arr_delay="99999"), "arr_delay", "99999 is not in -240..4320"),
    ("flights", with_values(air_time="0"), "air_time", "0 is not in 1..1440"),
    ("flights", with_values(minute="7"), "sched_dep_time, hour, minute", "do not agree: hour and minute make"),
    ("flights", with_values(dep_delay="NA"), "dep_time, dep_delay", "missing do not agree: a departure has both"),
    ("flights", with_values(dep_time="NA", dep_delay="NA"), "dep_time, arr_time, arr_delay", "never departed"),
    ("flights", with_values(time_hour="12.02.2013 10:00"), "time_hour", "is not an instant like"),
    ("flights", with_values(time_hour="2013-02-30T10:00:00Z"), "time_hour", "2013-02-30T10:00:00Z is not an instant"),
    ("flights", with_values(time_hour="2013-02-12T10:30:00Z"), "time_hour", "is not a full hour"),
    ("flights", with_values(time_hour="2014-02-12T10:00:00Z"), "time_hour, hour", "not the same hour of that day"),
    ("flights", with_values(day="31"), "year, month, day", "2013-2-31 is not a date"),
    ("flights", with_values(month="13"), "year, month, day", "2013-13-12 is not a date"),
    ("flights", with_values(year="NA"), "year", "is missing"),
    ("flights", raw("2013,2,12,517"), None, "has 4 fields where the header has 19"),
    ("flights", with_values(time_hour="2013-02-12T10:00:00Z,more"), None, "has 20 fields where the header has 19"),
    ("flights", raw(""), None, "is blank"),
    ("flights", raw("   "), None, "is blank"),
    ("flights", with_values(dest="L\udcffX"), None, "is not UTF-8"),
    ("flights", with_values(dest="I\x00H"), None, "holds a control character"),
    ("flights", with_values(origin='"JFK'), None, "is not CSV"),
    ("flights", raw(",".join(["x"] * 19)), "year, month, day, dep_time", "year: x is not a whole number"),
    ("weather", with_values(temp="warm"), "temp", "warm is not a number"),
    ("weather", with_values(temp="nan"), "temp", "nan is not a number"),
    ("weather", with_values(humid="100.5"), "humid", "100.5 is not in 0..100"),
    ("weather", with_values(wind_dir="361"), "wind_dir", "361.0 is not in 0..360"),
    (
        "weather",
        with_values(wind_speed="1048.36058", humid="-1"),
        "humid, wind_speed",
        "; wind_speed: 1048.36058 is not",
    ),
    ("weather", with_values(precip="-0.1"), "precip", "-0.1 is not in 0..15"),
    ("weather", with_values(hour="24"), "hour", "24 is not in 0..23"),
    ("planes", with_values(year="19"), "year", "19 is not in 1900..2100"),
    ("planes", with_values(seats="many"), "seats", "many is not a whole number"),
    ("airlines", with_values(name="x" * 201), "name", "… is not 1 to 200 characters long"),
    ("airlines", with_values(name="United "), "name", "without spaces around"),
    ("airports", with_values(lat="91"), "lat", "91.0 is not in -90..90"),
    ("airports", with_values(lon="-180.5"), "lon", "-180.5 is not in -180..180"),
    ("airports", with_values(dst="B"), "dst", "B is not one of A, U, N"),
]


@pytest.mark.parametrize(("table", "change", "column", "words"), MALFORMED)
def test_a_malformed_line_is_rejected_with_its_column_and_reason_and_its_neighbours_stay(
    table: str, change: Callable[[str, str], str], column: str | None, words: str
) -> None:
    header, *lines = lines_of(table)
    expected = take(table, packed([header, *lines[:5], *lines[6:]])).arrow
    bad = change(header, lines[5])

    batch = take(table, packed([header, *lines[:5], bad, *lines[6:]]))

    (rejected,) = batch.rejected.to_pylist()
    assert rejected["line"] == 7
    assert rejected["file"].startswith(DAY if table in ("flights", "weather") else table)
    assert rejected["partition_day"] == (date.fromisoformat(DAY) if table in ("flights", "weather") else None)
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
    header, *lines = lines_of("flights")
    expected = take("flights", packed([header, with_values(distance=number)(header, lines[0]), *lines[1:]])).arrow

    for form in forms:
        changed = [with_values(distance=form)(header, lines[0]), *lines[1:]]
        assert take("flights", packed([header, *changed])).arrow.equals(expected), form


def test_all_numbers_written_as_pandas_writes_a_column_with_a_gap_make_no_difference() -> None:
    header, *lines = lines_of("flights")
    numbers = [
        name
        for name, kind in zip(TABLE["flights"].arrow_schema().names, TABLE["flights"].arrow_schema().types, strict=True)
        if kind == pyarrow.int64()
    ]
    changed = []
    for line in lines:
        fields = dict(zip(header.split(","), line.split(","), strict=True))
        changed.append(",".join(f"{v}.0" if k in numbers and v != "NA" else v for k, v in fields.items()))

    assert take("flights", packed([header, *changed])).arrow.equals(take("flights", packed([header, *lines])).arrow)


@pytest.mark.parametrize("number", [9007199254740993, 999999999999999999, 2**63 - 1, -(2**63)])
def test_no_digit_of_a_whole_number_is_lost(number: int) -> None:
    text = pyarrow.array([f"{number}.0", None, str(number)])

    values, unparsable = typed(text, pyarrow.int64())

    assert values.to_pylist() == [number, None, number]
    assert not len(list(unparsable))


def test_the_last_line_of_a_plain_file_that_is_cut_short_is_rejected() -> None:
    header, *lines = lines_of("airlines")
    cut = "\n".join([header, *lines])[:-3].encode()

    batch = read_files(TABLE["airlines"], [("airlines.csv", None, cut)])

    assert [row["line"] for row in batch.rejected.to_pylist()] == [len(lines) + 1]
    assert "may be cut short" in batch.rejected["reason"][0].as_py()
    assert len(batch.rows) == len(lines) - 1


def test_the_later_row_of_a_key_is_rejected_and_names_the_first() -> None:
    header, *lines = lines_of("flights")

    batch = take("flights", packed([header, *lines, lines[3]]))

    (rejected,) = batch.rejected.to_pylist()
    assert rejected["line"] == len(lines) + 2
    assert rejected["reason"] == "flight_date, carrier, flight, origin, sched_dep_time: line 5 has the same"
    assert len(batch.rows) == len(lines)


def test_a_good_row_stays_when_the_earlier_row_of_its_key_is_bad() -> None:
    header, *lines = lines_of("weather")
    bad = with_values(wind_speed="1048.36058")(header, lines[0])

    batch = take("weather", packed([header, bad, *lines]))

    assert batch.rejected["line"].to_pylist() == [2]
    assert len(batch.rows) == len(lines)


def test_an_unreadable_file_holds_no_other_back() -> None:
    good = packed(lines_of("weather"))
    batch = read_files(TABLE["weather"], [(f"{DAY}.csv.gz", DAY, good), ("2013-02-13.csv.gz", "2013-02-13", good[:50])])

    assert batch.counts == {DAY: Count(rows=30, rejected=0)}
    assert [error.file for error in batch.unreadable] == ["2013-02-13.csv.gz"]


@pytest.mark.parametrize("table", TABLE)
def test_a_header_alone_is_a_file_without_rows(table: str) -> None:
    batch = take(table, packed(lines_of(table)[:1]))

    assert list(batch.counts.values()) == [Count(rows=0, rejected=0)]
    assert batch.arrow.schema == TABLE[table].arrow_schema()
    assert batch.rejected.schema == REJECTED


def test_column_order_quotes_line_ends_and_a_byte_order_mark_make_no_difference() -> None:
    header, *lines = lines_of("airlines")
    turned = [",".join(reversed(line.split(","))) for line in lines]
    quoted = "\ufeffname,carrier\r\n" + "\r\n".join('"' + line.replace(",", '","') + '"' for line in turned)

    assert take("airlines", gzip.compress(quoted.encode())).arrow.equals(
        take("airlines", packed([header, *lines])).arrow
    )


MUTATIONS = ["drop a field", "garbage", "garbage field", "duplicate", "blank", "cut", "swap"]


@settings(max_examples=60)
@given(data=st.data())
def test_nothing_is_lost_whatever_happens_to_the_lines(data: st.DataObject) -> None:
    header, *lines = lines_of(data.draw(st.sampled_from(["flights", "weather"])))
    table = "flights" if "tailnum" in header else "weather"
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


def keys(table: str, batch: Batch) -> set[tuple[object, ...]]:
    return set(batch.rows[TABLE[table].pandera_schema().unique].itertuples(index=False, name=None))


def test_an_empty_batch_is_an_empty_table() -> None:
    assert read_files(TABLE["flights"], []).arrow.equals(TABLE["flights"].arrow_schema().empty_table())
