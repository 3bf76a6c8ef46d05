"""The lake on disk and S3: partitions replaced in one commit, every version readable, errors that say what helps."""

import os
import re
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import resources.lake
from resources.lake import Lake
from resources.lake_errors import LakeError
from tests.s3 import CREDENTIALS, S3, s3_server

ONE, TWO = ["day"], ["day", "airport"]
NAMES = ["x y", "it's", "a%20b", 'a "b"', "é/ü#?", "=&", "日本", "..", "NULL"]


def lake_on(s3: S3, bucket: str, **options: str) -> Lake:
    reached = {"aws_endpoint_url": s3.endpoint_url, "aws_region": s3.region, "aws_allow_http": "true"}
    return Lake(f"s3://{bucket}/lake", storage_options=reached | options)


@pytest.fixture
def disk(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture(params=["disk", "s3"])
def lake(request: pytest.FixtureRequest, disk: Lake) -> Lake:
    """The same tests on both stores."""
    if request.param == "disk":
        return disk
    s3: S3 = request.getfixturevalue("s3")
    return lake_on(s3, s3.bucket())


def rows(partitions: Sequence[str], value: int, columns: Sequence[str] = ONE, each: int = 2) -> pa.Table:
    """`each` rows of every partition, told apart by `number`."""
    keys = [partition.split("|") if len(columns) > 1 else [partition] for partition in partitions for _ in range(each)]
    parts = {column: pa.array([key[place] for key in keys], pa.string()) for place, column in enumerate(columns)}
    numbers = pa.array(list(range(each)) * len(partitions), pa.int64())
    return pa.table({**parts, "number": numbers, "value": pa.array([value] * len(keys), pa.int64())})


def values(lake: Lake, columns: Sequence[str] = ONE, **read: Any) -> dict[str, list[int]]:
    """What `things` holds by partition."""
    found: dict[str, list[int]] = {}
    for row in lake.read("things", **read).to_pylist():
        found.setdefault("|".join(row[column] for column in columns), []).append(row["value"])
    return found


def ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


# One commit, and exactly the partitions that it names


@pytest.mark.parametrize("columns", [ONE, TWO], ids=["one dimension", "two dimensions"])
def test_hundreds_of_partitions_are_replaced_in_one_commit_and_no_others(lake: Lake, columns: list[str]) -> None:
    days = [f"2013-{n:03}" for n in range(120)]
    keys = days if columns == ONE else [f"{day}|{airport}" for day in days[:60] for airport in ("EWR", "JFK")]
    first = lake.replace("things", rows(keys, 1, columns), keys, columns)

    # With two dimensions, no product of days and airports: every third of them.
    again = [key for n, key in enumerate(keys) if n % 3]
    emptied, filled = again[:20], again[20:]
    assert lake.replace("things", rows(filled, 2, columns), again, columns) == first + 1

    kept = [key for key in keys if key not in again]
    assert values(lake, columns) == {key: [1, 1] if key in kept else [2, 2] for key in kept + filled}
    assert values(lake, columns, partitions=emptied) == {}
    assert lake.row_count("things") == 2 * len(kept + filled)


def test_one_commit_can_empty_every_partition_and_the_table_keeps_its_columns(lake: Lake) -> None:
    lake.replace("things", rows(NAMES, 1), NAMES, ONE)
    assert lake.replace("things", rows([], 1), NAMES, ONE) == 2
    assert lake.read("things").schema == rows([], 1).schema
    assert lake.row_count("things") == 0


@st.composite
def replacements(draw: st.DrawFn) -> tuple[list[str], list[tuple[list[str], list[str], int]]]:
    """Partition columns, and writes: the partitions, those of them that have rows, and the rows' value."""
    part = st.one_of(st.sampled_from(NAMES), st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=6))
    if draw(st.booleans()):
        columns, key = ONE, part
    else:
        # What Dagster refuses in a key of several dimensions.
        one = part.filter(lambda text: not set(text) & set("|,[]"))
        columns, key = TWO, st.builds("{}|{}".format, one, one)
    pool = draw(st.lists(key, min_size=1, max_size=6, unique=True))
    chosen = st.lists(st.sampled_from(pool), min_size=1, unique=True)
    written = chosen.flatmap(lambda keys: st.tuples(st.just(keys), st.lists(st.sampled_from(keys), unique=True)))
    writes = draw(st.lists(st.tuples(written, st.integers(0, 9)), min_size=1, max_size=5))
    return columns, [(keys, filled, value) for (keys, filled), value in writes]


@settings(max_examples=25)
@given(replacements())
def test_any_sequence_of_replacements_reads_as_the_last_write_of_each_partition(
    tmp_path_factory: pytest.TempPathFactory, sequence: tuple[list[str], list[tuple[list[str], list[str], int]]]
) -> None:
    columns, writes = sequence
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    expected: dict[str, list[int]] = {}
    for keys, filled, value in writes:
        lake.replace("things", rows(filled, value, columns), keys, columns)
        expected |= {key: [value, value] if key in filled else [] for key in keys}
    held = {key: found for key, found in expected.items() if found}

    assert values(lake, columns) == held
    for key in expected:
        assert values(lake, columns, partitions=[key]) == ({key: held[key]} if key in held else {})


@pytest.mark.parametrize(
    ("days", "keys"),
    [
        (pa.array([date(2013, 1, 1), date(2013, 1, 2)], pa.date32()), ["2013-01-01", "2013-01-02"]),
        (pa.array([-1, 20], pa.int16()), ["-1", "20"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
    ],
    ids=["date", "number", "category"],
)
def test_a_partition_column_may_hold_dates_numbers_or_categories(disk: Lake, days: pa.Array, keys: list[str]) -> None:
    disk.replace("things", pa.table({"day": days, "value": [1, 2]}), keys, ONE)
    disk.replace("things", pa.table({"day": days.take(pa.array([1])), "value": [3]}), keys[1:], ONE)
    found = {key: disk.read("things", [key])["value"].to_pylist() for key in keys}
    assert found == {keys[0]: [1], keys[1]: [3]}
    assert set(disk.files("things")["partition"].to_pylist()) == set(keys)


def test_a_table_without_partitions_is_replaced_whole(lake: Lake) -> None:
    lake.replace("things", rows(["a", "b"], 1))
    assert lake.replace("things", rows(["c"], 2)) == 2
    assert values(lake) == {"c": [2, 2]}


def test_branches_do_not_see_each_other(disk: Lake) -> None:
    disk.replace("things", rows(["a"], 1))
    with pytest.raises(LakeError, match="things is not in the lake"):
        Lake(disk.uri, "trial").read("things")
    assert disk.holds("things")
    assert not Lake(disk.uri, "trial").holds("things")


# What is refused, and nothing is written


@pytest.mark.parametrize(
    ("came", "said"),
    [
        (rows(["a", "b"], 2), r"things: rows with day = \['b'\] do not belong to the partitions .* \(a to a\)"),
        (rows(["a"], 2).set_column(0, "day", pa.nulls(2, pa.string())), r"rows with day = \['None'\] do not belong"),
        (rows(["a"], 2).drop_columns("day"), "things: the frame has no column day, which holds the partition key"),
        (pa.table({"day": ["a"]}), "things: the frame has no column but day; the lake needs one more"),
        (pa.table({"day": ["a"], "Day": ["a"], "number": [1], "value": [2]}), "columns day, Day have one name"),
        (pa.Table.from_arrays([["a"], [1], [2], [3]], ["day", "number", "value", "value"]), "value, value have one"),
    ],
    ids=[
        "a row of another partition",
        "a row of none",
        "no partition column",
        "nothing else",
        "names alike",
        "names the same",
    ],
)
def test_rows_that_fit_no_place_are_refused_and_nothing_is_written(disk: Lake, came: pa.Table, said: str) -> None:
    disk.replace("things", rows(["a", "b"], 1), ["a", "b"], ONE)
    with pytest.raises(ValueError, match=said):
        disk.replace("things", came, ["a"], ONE)
    assert disk.table("things").version() == 1
    assert values(disk) == {"a": [1, 1], "b": [1, 1]}


@pytest.mark.parametrize(("columns", "key"), [(ONE, ""), (TWO, "a|"), (TWO, "|a")])
def test_a_partition_with_an_empty_key_is_refused_since_delta_would_lose_it(
    disk: Lake, columns: list[str], key: str
) -> None:
    with pytest.raises(ValueError, match="things: the lake cannot hold a partition whose key is empty"):
        disk.replace("things", rows([key], 1, columns), [key], columns)


def test_a_partition_column_of_another_kind_is_refused_before_there_is_a_table(disk: Lake) -> None:
    # As an empty pandas frame may have it.
    frame = pa.schema([("day", pa.float64()), ("value", pa.int64())]).empty_table()
    with pytest.raises(
        ValueError, match="things: day holds the partition key as double; make it text, a date or an int"
    ):
        disk.replace("things", frame, ["a"], ONE)
    assert not disk.holds("things")


def test_another_partitioning_than_the_tables_is_refused_with_the_way_to_it(disk: Lake) -> None:
    disk.replace("things", rows(["a"], 1), ["a"], ONE)
    with pytest.raises(
        LakeError, match=r"partitioned by \['day'\] in the lake and by nothing in its asset\. Move .*/thi"
    ):
        disk.replace("things", rows(["a"], 1))


# Versions, times, order


def test_ten_overwrites_are_ten_versions_each_the_same_bytes_as_what_was_written(lake: Lake) -> None:
    written, moments = {}, {}
    for value in range(10):
        frame = rows(["a b", "ü"], value).append_column("text", pa.array(["é", None, f"{value}", ""]))
        version = lake.replace("things", frame, ["a b", "ü"], ONE)
        written[version], moments[version] = ipc(frame), datetime.now(UTC)
        threading.Event().wait(0.002)  # times in the log are whole milliseconds

    assert list(written) == list(range(1, 11))
    assert {version: ipc(lake.read("things", version=version)) for version in written} == written
    assert ipc(lake.read("things", as_of=moments[1])) == written[1]
    assert ipc(lake.read("things", as_of=moments[4].isoformat())) == written[4]
    assert ipc(lake.read("things", ["ü"], version=3)) == ipc(lake.read("things", version=3).slice(2))


def test_version_0_is_the_table_before_anything_was_stored(disk: Lake) -> None:
    disk.replace("things", rows(["a"], 1), ["a"], ONE)
    assert disk.read("things", version=0).equals(rows([], 1))


def test_the_log_of_old_versions_is_never_cleaned_up_by_itself(disk: Lake) -> None:
    logs = Path(disk.path("things"), "_delta_log")

    def write_for_years(properties: dict[str, str]) -> list[Path]:
        """The commits that are left when every second one makes a checkpoint, and all are very old by then."""
        disk.table("things").alter.set_table_properties({"delta.checkpointInterval": "2"} | properties)
        for value in range(4):
            for log in logs.iterdir():
                os.utime(log, (0, 0))
            disk.replace("things", rows(["a"], value), ["a"], ONE)
        assert list(logs.glob("*.checkpoint.parquet"))
        return list(logs.glob("*.json"))

    disk.replace("things", rows(["a"], 9), ["a"], ONE)
    assert len(write_for_years({})) == disk.table("things").version() + 1
    assert values(disk, version=1) == {"a": [9, 9]}
    assert len(write_for_years({"delta.enableExpiredLogCleanup": "true"})) < disk.table("things").version()


def shuffled(count: int, partitions: Sequence[str]) -> pa.Table:
    """Rows of all the partitions in no order, and too random to become small."""
    random = np.random.default_rng(0)
    keys = pa.array(partitions).take(pa.array(random.integers(0, len(partitions), count)))
    return pa.table({"day": keys, "number": random.permutation(count), "noise": random.random(count)})


@pytest.mark.parametrize("file_bytes", [100 * 2**20, 30_000], ids=["one file", "many files"])
@pytest.mark.parametrize("chunk", [100_000, 700], ids=["in one piece", "in many pieces"])
def test_the_rows_of_a_partition_keep_their_order(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, file_bytes: int, chunk: int
) -> None:
    monkeypatch.setattr(resources.lake, "FILE_BYTES", file_bytes)
    whole = shuffled(30_000, ["a", "b"])
    pieces = pa.concat_tables([whole.slice(start, chunk) for start in range(0, len(whole), chunk)])
    lake.replace("things", pieces, ["a", "b"], ONE)

    assert (lake.files("things").num_rows > 10) == (file_bytes == 30_000)
    expected = {key: whole.filter(pc.field("day") == key)["number"] for key in ("a", "b")}
    assert {key: lake.read("things", [key])["number"] for key in expected} == expected
    assert lake.read("things")["number"] == pa.chunked_array([*expected["a"].chunks, *expected["b"].chunks])


def test_a_table_without_partitions_keeps_the_order_of_its_rows(disk: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.lake, "FILE_BYTES", 30_000)
    whole = shuffled(30_000, ["a"])
    disk.replace("things", pa.concat_tables([whole.slice(start, 700) for start in range(0, 30_000, 700)]))
    assert disk.files("things").num_rows > 10
    assert disk.read("things")["number"] == whole["number"]


# Reading no more than is asked for


def files_of(lake: Lake, partition: str) -> list[Path]:
    listed = lake.files("things").to_pylist()
    return [Path(lake.path("things"), row["path"]) for row in listed if row["partition"] == partition]


def test_only_the_files_of_the_wanted_partitions_are_opened(disk: Lake) -> None:
    disk.replace("things", rows(["a", "b", "c"], 1), ["a", "b", "c"], ONE)
    for path in files_of(disk, "b"):
        path.unlink()
    assert values(disk, partitions=["c", "a"]) == {"a": [1, 1], "c": [1, 1]}
    assert disk.read("things", []).num_rows == 0
    assert disk.read("things", ["never made"]).num_rows == 0


def test_only_the_files_that_a_filter_can_meet_are_opened(disk: Lake) -> None:
    disk.replace("things", rows(["a"], 1), ["a"], ONE)
    disk.replace("things", rows(["b"], 50), ["b"], ONE)
    for path in files_of(disk, "b"):
        path.unlink()
    assert values(disk, filters=[("value", "<", 50)]) == {"a": [1, 1]}
    assert values(disk, filters=[[("day", "=", "a"), ("number", ">", 0)], [("value", "=", 2)]]) == {"a": [1]}


def test_only_the_wanted_columns_are_read_from_a_file(disk: Lake) -> None:
    disk.replace("things", rows(["a"], 1, each=1000), ["a"], ONE)
    (path,) = files_of(disk, "a")
    place = pq.read_metadata(path).row_group(0).column(1)
    assert place.path_in_schema == "value"
    damaged = bytearray(path.read_bytes())
    start = place.dictionary_page_offset or place.data_page_offset
    damaged[start : start + place.total_compressed_size] = bytes(place.total_compressed_size)
    path.write_bytes(damaged)

    assert disk.read("things", columns=["number", "day"])["number"].to_pylist() == list(range(1000))
    with pytest.raises(LakeError, match="things cannot be read"):
        disk.read("things")


def test_columns_come_in_the_order_asked_for_and_those_of_a_filter_do_not_come_along(disk: Lake) -> None:
    disk.replace("things", rows(["a", "b"], 1), ["a", "b"], ONE)
    found = disk.read("things", columns=["number", "day"], filters=[("value", "=", 1)])
    assert found.column_names == ["number", "day"]
    assert (disk.read("things", columns=[]).num_rows, disk.read("things", columns=[]).num_columns) == (4, 0)


def test_a_dataset_is_scanned_in_batches_with_the_same_rows_in_the_same_order(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.lake, "FILE_BYTES", 30_000)
    lake.replace("things", shuffled(20_000, ["a", "b"]), ["a", "b"], ONE)
    lake.replace("things", shuffled(10, ["a"]), ["a"], ONE)
    found = lake.dataset("things", ["b"], ["number"], version=1, filters=[("noise", "<", 0.5)])

    expected = lake.read("things", ["b"], version=1, filters=[("noise", "<", 0.5)])
    assert found.to_table(columns=["number"])["number"] == expected["number"]
    assert max(batch.num_rows for batch in found.to_batches(batch_size=500)) <= 500
    assert lake.dataset("things", []).count_rows() == 0


VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(),
    # Delta keeps only the beginning of a long text among a file's smallest and largest values.
    pa.string(): st.one_of(st.text(max_size=5), st.text("a\U0010ffff", min_size=30, max_size=70)),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    # Of these, and of infinities, Delta's log keeps less than their smallest and largest values.
    pa.timestamp("us", "UTC"): st.datetimes(timezones=st.just(UTC)),
    pa.decimal128(20, 2): st.decimals(-(10**17), 10**17, places=2),
}


@settings(max_examples=40)
@given(st.data())
def test_a_filter_gives_the_rows_of_the_whole_table_that_meet_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    kind = data.draw(st.sampled_from(list(VALUES)))
    parts = data.draw(st.lists(st.lists(st.none() | VALUES[kind], min_size=1, max_size=4), min_size=1, max_size=3))
    for number, part in enumerate(parts):
        frame = pa.table({"day": [str(number)] * len(part), "value": pa.array(part, kind)})
        lake.replace("things", frame, [str(number)], ONE)
    known = [value for part in parts for value in part if value is not None]
    wanted = data.draw(st.sampled_from(known) if known else VALUES[kind])
    sign = data.draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))

    expected = lake.read("things").filter(pq.filters_to_expression([("value", sign, pa.scalar(wanted, kind))]))
    assert lake.read("things", filters=[("value", sign, wanted)])["day"].to_pylist() == expected["day"].to_pylist()


# Errors


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda lake: lake.read("never"), r"^never is not in the lake at \S+/main/never; materialize it first\.$"),
        (lambda lake: lake.read("things", version=7), r"^things has no version 7: it has 0 to 2\.$"),
        (lambda lake: lake.read("things", version=-1), r"^things has no version -1: it has 0 to 2\.$"),
        (lambda lake: lake.read("things", version=1, as_of=datetime.now(UTC)), "name a version or a time"),
        (
            lambda lake: lake.read("things", as_of="2001-01-01T00:00:00Z"),
            r"things was first stored at 20\S+, after 200",
        ),
        (
            lambda lake: lake.read("things", as_of="2001-01-01"),
            r"things: as_of = 2001-01-01 is no time with a zone, su",
        ),
        (lambda lake: lake.read("things", as_of=datetime(2099, 1, 1)), "is no time with a zone"),
        (lambda lake: lake.read("things", as_of="yesterday"), "as_of = yesterday is no time with a zone, such as 2013"),
        (lambda lake: lake.read("things", columns=["day", "hue"]), "^things has no column hue; it has day, number, v"),
        (lambda lake: lake.read("things", filters=[("hue", "=", 1)]), "^things has no column hue; it has day, numb"),
        (lambda lake: lake.dataset("things", filters=[("hue", "=", 1)]), "^things has no column hue; it has day, nu"),
        (lambda lake: lake.read("things", filters=[("value", "=", "x")]), "compares a column with a value of another"),
        (lambda lake: lake.read("whole", ["a"]), r"^whole is not partitioned: read it without naming partitions\.$"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_there_is(disk: Lake, ask: Callable[[Lake], object], said: str) -> None:
    disk.replace("things", rows(["a"], 1), ["a"], ONE)
    disk.replace("things", rows(["a"], 2), ["a"], ONE)
    disk.replace("whole", rows(["a"], 2))
    with pytest.raises(LakeError, match=said):
        ask(disk)


def asked(lake: Lake) -> list[str]:
    """What a reader and a writer are told."""
    said = []
    for ask in (
        lambda: lake.read("things"),
        lambda: lake.replace("things", rows(["a"], 1)),
        lambda: lake.holds("things"),
    ):
        with pytest.raises(LakeError) as refused:
            ask()
        said.append(str(refused.value))
    return said


def test_a_missing_bucket_is_named_with_what_to_do(s3: S3) -> None:
    for said in asked(lake_on(s3, "no-such-bucket")):
        assert re.match(
            r"things cannot be (read|written) \(s3://no-such-bucket/lake/main/things\): .*NoSuchBucket", said
        )
        assert said.endswith("\nThe bucket does not exist: create it, or correct TILTH_LAKE_URI.")


def test_refused_credentials_are_explained_without_showing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "wrong-and-secret")
    with s3_server({"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as strict:
        for said in asked(lake_on(strict, "bucket")):
            assert "InvalidAccessKeyId" in said
            assert "\nThere are no credentials, or the store refuses them: check AWS_ACCESS_KEY_ID" in said
            assert "wrong-and-secret" not in said


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_an_endpoint_that_cannot_be_reached_is_named_with_what_to_check(s3: S3, endpoint: str) -> None:
    for said in asked(lake_on(S3(endpoint), "bucket", max_retries="1", retry_timeout="5s")):
        assert endpoint in said
        assert said.endswith(
            "\nThe store cannot be reached: check TILTH_S3_ENDPOINT_URL and the network, then run it again."
        )


def test_a_plain_http_endpoint_that_is_not_allowed_says_how_to_allow_it(s3: S3) -> None:
    lake = lake_on(s3, s3.bucket(), aws_allow_http="false", max_retries="1", retry_timeout="5s")
    for said in asked(lake):
        assert said.endswith(
            "\nThe endpoint is plain HTTP: name it in TILTH_S3_ENDPOINT_URL, or set AWS_ALLOW_HTTP=true."
        )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def scrambled(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(byte ^ 255 for byte in data[4:64]) + data[64:])


@pytest.mark.parametrize("harm", [cut, scrambled, Path.unlink], ids=["cut off", "scrambled", "gone"])
def test_a_damaged_file_fails_its_partition_only_and_making_that_again_mends_the_table(
    disk: Lake, harm: Callable[[Path], None]
) -> None:
    disk.replace("things", rows(["a", "b"], 1), ["a", "b"], ONE)
    for path in files_of(disk, "b"):
        harm(path)

    for partitions in (["b"], None):
        with pytest.raises(LakeError) as refused:
            disk.read("things", partitions)
        assert str(refused.value).startswith(f"things cannot be read ({disk.path('things')}): ")
        assert "A file of the table is damaged or gone: materialize its partition again" in str(refused.value)
    assert values(disk, partitions=["a"]) == {"a": [1, 1]}
    disk.replace("things", rows(["b"], 2), ["b"], ONE)
    assert values(disk) == {"a": [1, 1], "b": [2, 2]}


def test_a_damaged_log_says_to_restore_it(disk: Lake) -> None:
    disk.replace("things", rows(["a"], 1))
    Path(disk.path("things"), "_delta_log", f"{1:020}.json").write_text('{"add": {"pa')
    with pytest.raises(
        LakeError, match=r"(?s)things cannot be read .*Json error: Tru\S+ record \w+ \w+ string\nThe tabl"
    ) as refused:
        disk.read("things")
    assert "The table's log is damaged: restore its folder _delta_log from a backup" in str(refused.value)


# Where a lake may lie


@pytest.mark.parametrize("name", ["a b", "c#d", "é ü", "q?x", "it's", "日本"])
def test_a_folder_of_any_name_holds_a_lake(tmp_path: Path, name: str) -> None:
    lake = Lake(str(tmp_path / name))
    lake.replace("things", rows(NAMES, 1), NAMES, ONE)
    lake.replace("things", rows(NAMES[:1], 2), NAMES[:1], ONE)
    assert values(lake) == {key: [2, 2] if key == NAMES[0] else [1, 1] for key in NAMES}
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["/data/a%20b", "s3://bucket/a%20b", "s3://bucket/a#b", "s3://bucket/a?b"])
def test_a_path_that_delta_rs_would_take_for_another_is_refused_before_anything_is_written(name: str) -> None:
    # delta-rs writes the data of /data/a%20b there and looks for its log in `/data/a b`; of s3://bucket/a#b/… it takes
    # `#b/…` for a fragment, so that all tables of such a lake would be one.
    with pytest.raises(
        LakeError, match=re.escape(f"{name}/main/things: delta-rs cannot store tables under a path with")
    ):
        Lake(name).replace("things", rows(["a"], 1))


@pytest.mark.parametrize("part", ["", "..", "_delta_log", "a/b"])
def test_a_key_that_names_no_folder_of_its_own_is_refused(tmp_path: Path, part: str) -> None:
    with pytest.raises(LakeError, match=r"in an asset key names no folder of its own; choose another"):
        Lake(str(tmp_path)).path(dg.AssetKey(["things", part]))


@pytest.mark.parametrize("column", ['a"b', "a'b", "a b"])
@pytest.mark.parametrize("key", ['x"y', "x\ty", "x'y", "x%y/z=", "é"])
def test_partition_columns_and_keys_may_hold_any_characters_that_can_be_seen(
    tmp_path: Path, column: str, key: str
) -> None:
    lake = Lake(str(tmp_path))
    for value in (1, 2):
        lake.replace("things", pa.table({column: [key], "value": [value]}), [key], [column])
    assert lake.read("things", [key]).to_pylist() == [{column: key, "value": 2}]


def test_a_partition_column_with_a_name_that_cannot_be_seen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"things: a column has the name 'a\\tb'; give it one of letters"):
        Lake(str(tmp_path)).replace("things", pa.table({"a\tb": ["x"], "value": [1]}), ["x"], ["a\tb"])


def test_no_filter_keeps_every_row(disk: Lake) -> None:
    disk.replace("things", rows(["a", "b"], 1), ["a", "b"], ONE)
    assert disk.read("things", filters=[]).equals(disk.read("things"))
