"""Assets whose frames are tables of the lake, run by Dagster: what inputs read, what materializations record."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from resources.lake import Lake
from resources.lake_errors import LakeError
from resources.lake_io import LakeIOManager
from tests.conftest import QUIET
from tests.s3 import S3

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
MONTHS = dg.MonthlyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
AIRPORTS = dg.StaticPartitionsDefinition(["EWR", "JFK", "LGA"])
BY_BOTH = dg.MultiPartitionsDefinition({"month": MONTHS, "airport": AIRPORTS})
ONE_RUN = dg.BackfillPolicy.single_run()
FIRST, SECOND, THIRD = "2013-01-01", "2013-01-02", "2013-01-03"


class Rows(dg.Config):
    value: int = 1
    of_the_day: int = 3


@dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day"}, backfill_policy=ONE_RUN)
def things(context: dg.AssetExecutionContext, config: Rows) -> pd.DataFrame:
    days = [date.fromisoformat(key) for key in context.partition_keys for _ in range(config.of_the_day)]
    day = pd.Series(days, dtype="date32[pyarrow]")
    return pd.DataFrame({"day": day, "number": range(len(days)), "value": config.value, "note": "seen"})


@dg.asset(
    partitions_def=BY_BOTH,
    metadata={"partition_expr": {"airport": "origin", "month": "month"}},
    backfill_policy=ONE_RUN,
)
def models(context: dg.AssetExecutionContext) -> pa.Table:
    keys = [key.keys_by_dimension for key in context.partition_keys]
    columns = {name: [key[part] for key in keys] for name, part in (("origin", "airport"), ("month", "month"))}
    return pa.table({**columns, "rows": [1] * len(keys)})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def span(first: str, last: str | None = None) -> dict[str, str]:
    ends = {"start": first, "end": last or first}
    return {f"dagster/asset_partition_range_{end}": key for end, key in ends.items()}


def run(
    lake: Lake,
    instance: dg.DagsterInstance,
    *assets: dg.AssetsDefinition,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    error: bool = True,
) -> dg.ExecuteInProcessResult:
    """One Dagster run of these; `things` and `models` are there to be read."""
    ops = {"ops": {asset.op.name: {"config": config} for asset in assets}} if config else {}
    known = {asset.key: asset for asset in (things, models, *assets)}
    return dg.materialize(
        list(known.values()),
        selection=[asset.key for asset in assets],
        instance=instance,
        resources={"io_manager": LakeIOManager(lake)},
        run_config=QUIET | ops,
        tags=tags,
        raise_on_error=error,
    )


def read_by(
    lake: Lake,
    instance: dg.DagsterInstance,
    kind: Any,
    upstream: str = "things",
    mapping: dg.PartitionMapping | None = None,
    partitions: dg.PartitionsDefinition | None = None,
    tags: Mapping[str, str] | None = None,
    **metadata: Any,
) -> Any:
    """What an asset gets whose parameter is annotated as `kind`."""
    got = []

    def reader(found: Any) -> None:
        got.append(found)

    reader.__annotations__ = {"found": kind, "return": None} if kind else {"return": None}
    source = dg.AssetIn(upstream, metadata=metadata, partition_mapping=mapping)
    run(lake, instance, dg.asset(ins={"found": source}, partitions_def=partitions)(reader), tags=tags)
    return got[0]


def recorded(instance: dg.DagsterInstance, key: str) -> dict[str | None, dg.AssetMaterialization]:
    """The newest materialization of each partition, as it comes back from Dagster's storage."""
    found: dict[str | None, dg.AssetMaterialization] = {}
    for record in instance.fetch_materializations(dg.AssetKey(key), limit=500).records:
        assert record.asset_materialization is not None
        found.setdefault(record.partition_key, record.asset_materialization)
    return found


def shown(event: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in event.metadata.items()}


def preview(event: dg.AssetMaterialization) -> list[Mapping[str, Any]]:
    table = event.metadata["preview"]
    assert isinstance(table, dg.TableMetadataValue)
    return [record.data for record in table.records]


# What an input reads


@pytest.mark.parametrize(
    ("kind", "found", "day_of"),
    [
        (pd.DataFrame, pd.DataFrame, lambda frame: frame["day"].tolist()),
        (None, pd.DataFrame, lambda frame: frame["day"].tolist()),
        (Any, pd.DataFrame, lambda frame: frame["day"].tolist()),
        (pa.Table, pa.Table, lambda frame: frame["day"].to_pylist()),
        (ds.Dataset, ds.Dataset, lambda frame: frame.to_table()["day"].to_pylist()),
        (pl.DataFrame, pl.DataFrame, lambda frame: frame["day"].to_list()),
    ],
)
def test_an_input_comes_as_its_annotation_asks(
    lake: Lake, instance: dg.DagsterInstance, kind: Any, found: type, day_of: Callable[[Any], list[date]]
) -> None:
    run(lake, instance, things, tags=span(FIRST, THIRD))
    frame = read_by(lake, instance, kind, partitions=DAYS, tags=span(SECOND))
    assert isinstance(frame, found)
    assert day_of(frame) == [date(2013, 1, 2)] * 3


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.Table, pl.DataFrame])
def test_a_frame_of_any_kind_can_be_returned(lake: Lake, instance: dg.DagsterInstance, kind: Any) -> None:
    table = pa.table({"value": [1, None], "word": ["a", "é"]})

    @dg.asset
    def frame() -> kind:
        return {pd.DataFrame: table.to_pandas, pa.Table: lambda: table, pl.DataFrame: lambda: pl.from_arrow(table)}[
            kind
        ]()

    run(lake, instance, frame)
    found = lake.read("frame")
    assert found["word"].to_pylist() == ["a", "é"]
    assert found["value"].to_pylist() == [1, None]


def test_what_is_no_frame_is_refused_with_what_can_be_returned(lake: Lake, instance: dg.DagsterInstance) -> None:
    @dg.asset
    def frame() -> dict[str, int]:
        return {"a": 1}

    with pytest.raises(
        TypeError, match="a dict is no table: return a pandas, polars or pyarrow frame, or name another"
    ):
        run(lake, instance, frame)


def test_a_pandas_frame_may_be_changed_by_the_asset_that_reads_it(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, things, tags=span(FIRST))
    frame = read_by(lake, instance, pd.DataFrame, partitions=DAYS, tags=span(FIRST))
    frame["value"] += 1
    frame.loc[0, "number"] = 9
    assert frame["value"].tolist() == [2, 2, 2]


def only_keep(lake: Lake, key: str, *partitions: str) -> None:
    """Remove the files of all other partitions from the disk: whoever opens one of them fails."""
    for file in lake.files(key).to_pylist():
        if file["partition"] not in partitions:
            Path(lake.path(key), file["path"]).unlink()


@pytest.mark.parametrize("kind", [pd.DataFrame, ds.Dataset])
def test_only_the_partitions_of_the_mapping_are_read(lake: Lake, instance: dg.DagsterInstance, kind: Any) -> None:
    run(lake, instance, things, tags=span("2013-01-01", "2013-01-31"))
    only_keep(lake, "things", *(f"2013-01-{day:02}" for day in range(4, 11)))
    week = dg.TimeWindowPartitionMapping(start_offset=-6)
    frame = read_by(lake, instance, kind, mapping=week, partitions=DAYS, tags=span("2013-01-10"))
    days = frame.to_table().to_pandas()["day"] if kind is ds.Dataset else frame["day"]
    assert sorted(set(days)) == [date(2013, 1, day) for day in range(4, 11)]


def test_one_dimension_reads_its_partitions_of_the_other(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, models, tags=span("EWR|2013-01-01", "LGA|2013-02-01"))
    assert lake.row_count("models") == 6
    only_keep(lake, "models", *(f"{airport}|2013-02-01" for airport in ("EWR", "JFK", "LGA")))
    mapping = dg.MultiToSingleDimensionPartitionMapping("month")
    frame = read_by(lake, instance, None, "models", mapping, MONTHS, span("2013-02-01"))
    assert frame.to_dict("list") == {"origin": ["EWR", "JFK", "LGA"], "month": ["2013-02-01"] * 3, "rows": [1] * 3}


def test_an_asset_without_partitions_reads_all_of_them(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, things, tags=span(FIRST, THIRD))
    assert read_by(lake, instance, pa.Table).num_rows == 9


def test_a_partition_that_was_made_empty_reads_as_an_empty_frame(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, things, tags=span(FIRST))
    run(lake, instance, things, tags=span(SECOND), config={"of_the_day": 0})
    frame = read_by(lake, instance, pa.Table, partitions=DAYS, tags=span(SECOND))
    assert frame.num_rows == 0
    assert frame.schema == lake.read("things").schema


def test_only_the_columns_of_the_inputs_metadata_are_read(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, things, tags=span(FIRST))
    frame = read_by(lake, instance, None, partitions=DAYS, tags=span(FIRST), columns=["value", "day"])
    assert list(frame.columns) == ["value", "day"]
    found = read_by(lake, instance, ds.Dataset, partitions=DAYS, tags=span(FIRST), columns=["value", "day"])
    assert found.schema.names == ["value", "day"]


@pytest.mark.parametrize("kind", [pa.Table, ds.Dataset])
def test_a_filter_of_the_inputs_metadata_opens_only_the_files_that_can_meet_it(
    lake: Lake, instance: dg.DagsterInstance, kind: Any
) -> None:
    run(lake, instance, things, tags=span(FIRST, SECOND))
    run(lake, instance, things, tags=span(THIRD), config={"value": 7})
    only_keep(lake, "things", THIRD)
    found = read_by(lake, instance, kind, columns=["day"], filters=[("value", ">", 3), ("number", "<", 2)])
    rows = found.to_table(columns=["day"]) if kind is ds.Dataset else found
    assert rows.to_pydict() == {"day": [date(2013, 1, 3)] * 2}


def test_an_input_may_name_a_version_or_a_time_of_the_table(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, things, tags=span(FIRST))
    noted = datetime.now(UTC).isoformat()
    run(lake, instance, things, tags=span(FIRST), config={"value": 2})
    for asked, value in (({"version": 1}, 1), ({"version": 2}, 2), ({"as_of": noted}, 1), ({}, 2)):
        frame = read_by(lake, instance, None, partitions=DAYS, tags=span(FIRST), **asked)
        assert frame["value"].tolist() == [value] * 3


def test_a_frame_is_read_on_s3_as_on_a_disk(s3: S3, instance: dg.DagsterInstance) -> None:
    reached = {"aws_endpoint_url": s3.endpoint_url, "aws_region": s3.region, "aws_allow_http": "true"}
    lake = Lake(f"s3://{s3.bucket()}/lake", storage_options=reached)
    run(lake, instance, things, tags=span(FIRST, THIRD))
    for kind in (pd.DataFrame, pa.Table, pl.DataFrame):
        frame = read_by(lake, instance, kind, partitions=DAYS, tags=span(SECOND), columns=["day", "number"])
        assert (frame.num_rows if kind is pa.Table else len(frame)) == 3
    found = read_by(lake, instance, ds.Dataset, partitions=DAYS, tags=span(SECOND))
    assert found.to_table()["number"].to_pylist() == [3, 4, 5]
    assert all(shown(event)["bytes"] > 0 for event in recorded(instance, "things").values())


def test_a_partitioned_asset_that_names_no_column_is_refused_with_what_to_write(
    lake: Lake, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=BY_BOTH)
    def nameless() -> pa.Table:
        return pa.table({"a": [1]})

    with pytest.raises(
        ValueError, match=r'nameless is partitioned: .* metadata=\{"partition_expr": \{"airport": "<colu'
    ):
        run(lake, instance, nameless, tags={"dagster/partition": "EWR|2013-01-01"})
    assert not lake.holds("nameless")


# What is stored


def test_a_range_of_partitions_is_one_commit_that_replaces_exactly_these(
    lake: Lake, instance: dg.DagsterInstance
) -> None:
    run(lake, instance, things, tags=span("2013-01-01", "2013-02-28"))
    run(lake, instance, things, tags=span("2013-01-10", "2013-01-19"), config={"value": 2})
    run(lake, instance, things, tags=span("2013-01-15", "2013-01-16"), config={"of_the_day": 0})
    assert lake.table("things").version() == 3
    days = lake.read("things").group_by(["day", "value"]).aggregate([("number", "count")]).to_pylist()
    found = {str(row["day"]): (row["value"], row["number_count"]) for row in days}
    replaced = [f"2013-01-{day}" for day in range(10, 20)]
    emptied = replaced[5:7]
    expected = {key: (2 if key in replaced else 1, 3) for key in DAYS.get_partition_keys() if key not in emptied}
    assert found == expected


def test_a_step_that_returns_a_row_of_another_partition_changes_nothing(
    lake: Lake, instance: dg.DagsterInstance
) -> None:
    @dg.asset(name="things", partitions_def=DAYS, metadata={"partition_expr": "day"})
    def too_much() -> pa.Table:
        return pa.table(
            {"day": [date(2013, 1, 1), date(2013, 1, 2)], "number": [1, 1], "value": [5, 5], "note": ["", ""]}
        )

    run(lake, instance, things, tags=span(FIRST, SECOND))
    failed = run(lake, instance, too_much, tags=span(FIRST), error=False)
    assert not failed.success
    assert lake.read("things")["value"].to_pylist() == [1] * 6
    assert shown(recorded(instance, "things")[FIRST])["delta_version"] == 1


# What is recorded


def test_every_partition_records_its_rows_its_bytes_its_version_and_the_tables_rows(
    lake: Lake, instance: dg.DagsterInstance
) -> None:
    run(lake, instance, things, tags=span(FIRST, SECOND), config={"of_the_day": 200})
    run(lake, instance, things, tags=span(THIRD), config={"of_the_day": 8})
    found = {key: shown(event) for key, event in recorded(instance, "things").items()}

    sizes: dict[str, int] = dict.fromkeys(found, 0)
    for file in lake.files("things").to_pylist():
        sizes[file["partition"]] += Path(lake.path("things"), file["path"]).stat().st_size
    assert {key: event["bytes"] for key, event in found.items()} == sizes
    assert min(sizes.values()) > 0
    counts = {key: event["dagster/partition_row_count"] for key, event in found.items()}
    assert counts == {FIRST: 200, SECOND: 200, THIRD: 8}
    assert {key: event["delta_version"] for key, event in found.items()} == {FIRST: 1, SECOND: 1, THIRD: 2}
    assert {key: event["dagster/row_count"] for key, event in found.items()} == {FIRST: 400, SECOND: 400, THIRD: 408}
    assert {event["dagster/uri"] for event in found.values()} == {lake.path("things")}
    columns = {column.name: column.type for column in found[FIRST]["dagster/column_schema"].columns}
    assert columns == {"day": "date32[day]", "number": "int64", "value": "int64", "note": "string"}


def test_what_another_step_writes_meanwhile_is_not_recorded_as_this_ones(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    class Shared(Lake):
        def replace(self, *arguments: Any, **named: Any) -> int:
            version = super().replace(*arguments, **named)
            rows = pa.table({"day": [date.fromisoformat(SECOND)], "number": [1], "value": [1], "note": ["another's"]})
            super().replace("things", rows.cast(pa.schema(self.table("things").schema().to_arrow())), [SECOND], ["day"])
            return version

    lake = Shared(str(tmp_path / "lake"))
    run(lake, instance, things, tags=span(FIRST), config={"of_the_day": 3})
    event = shown(recorded(instance, "things")[FIRST])
    assert (event["delta_version"], event["dagster/row_count"]) == (1, 3)


def test_a_partition_without_rows_records_none_and_no_bytes(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, things, tags=span(FIRST, SECOND), config={"of_the_day": 0})
    for event in recorded(instance, "things").values():
        assert (shown(event)["dagster/partition_row_count"], shown(event)["bytes"]) == (0, 0)
        assert "preview" not in event.metadata


def test_partitions_of_two_dimensions_record_each_their_own(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, models, tags=span("EWR|2013-01-01", "LGA|2013-02-01"))
    found = recorded(instance, "models")
    assert set(found) == set(BY_BOTH.get_partition_keys())
    assert [shown(event)["dagster/partition_row_count"] for event in found.values()] == [1] * 6
    assert preview(found["JFK|2013-02-01"]) == [{"origin": "JFK", "month": "2013-02-01", "rows": 1}]


def test_an_asset_without_partitions_records_its_table(lake: Lake, instance: dg.DagsterInstance) -> None:
    @dg.asset
    def whole() -> pa.Table:
        return pa.table({"a": range(7)})

    run(lake, instance, whole)
    event = recorded(instance, "whole")[None]
    assert shown(event)["dagster/row_count"] == 7
    assert shown(event)["bytes"] == sum(path.stat().st_size for path in Path(lake.path("whole")).glob("*.parquet"))
    assert shown(event)["step/partitions"] == 1
    assert preview(event) == [{"a": number} for number in range(5)]


def test_what_the_step_used_is_recorded_with_every_partition(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, things, tags=span(FIRST, THIRD))
    used = [
        {name: value for name, value in shown(event).items() if name.startswith("step/")}
        for event in recorded(instance, "things").values()
    ]
    assert used[0] == used[1] == used[2]
    assert set(used[0]) == {"step/seconds", "step/cpu_seconds", "step/peak_memory_bytes", "step/partitions"}
    assert used[0]["step/partitions"] == 3
    assert 0 < used[0]["step/seconds"] < 60
    assert 0 <= used[0]["step/cpu_seconds"] < 60


def test_a_preview_shows_the_first_five_rows_whatever_they_hold(lake: Lake, instance: dg.DagsterInstance) -> None:
    rows = {
        "day": [date(2013, 1, 1)] * 7,
        "number": [float("nan"), float("inf"), -float("inf"), None, 1.5, 6.0, 7.0],
        "at": [datetime(2013, 1, 1, 5, tzinfo=UTC)] * 7,
        "blob": [b"\xff\x00"] * 7,
        "nested": [[1, None]] * 7,
        "text": ["a\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "", None, "\x00", "<b>", "", ""],
        "flag": [True, None, False, True, True, True, True],
    }

    @dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day"})
    def odd() -> pa.Table:
        return pa.table(rows)

    run(lake, instance, odd, tags=span(FIRST))
    event = recorded(instance, "odd")[FIRST]
    first = preview(event)
    assert [row["number"] for row in first] == ["nan", "inf", "-inf", None, 1.5]
    assert {row["day"] for row in first} == {"2013-01-01"}
    assert {row["at"] for row in first} == {"2013-01-01 05:00:00+00:00"}
    assert first[0]["nested"] == "[1, None]"
    assert [row["text"] for row in first] == rows["text"][:5]
    assert json.dumps(first, allow_nan=False)  # NaN and infinity are no JSON, and a browser could not read them


# Data versions through Dagster


def versions(instance: dg.DagsterInstance, key: str = "things") -> dict[str | None, str]:
    return {name: (event.tags or {})["dagster/data_version"] for name, event in recorded(instance, key).items()}


def numbered(frame_of: Callable[[str], pd.DataFrame], **metadata: Any) -> dg.AssetsDefinition:
    @dg.asset(
        name="numbered", partitions_def=DAYS, metadata={"partition_expr": "day", **metadata}, backfill_policy=ONE_RUN
    )
    def asset(context: dg.AssetExecutionContext) -> pd.DataFrame:
        frame = pd.concat([frame_of(key).assign(day=key) for key in context.partition_keys], ignore_index=True)
        # One category per day, so that a range's are other than a day's.
        return frame.assign(kind=pd.Categorical(frame["day"] + frame["kind"]))

    return asset


def some(key: str) -> pd.DataFrame:
    many = [f"{number:03}" for number in range(100)]
    return pd.DataFrame(
        {"kind": many, "value": np.arange(100) % 7, "half": [None, 0.5] * 50, "flag": [True, None] * 50}
    )


def test_a_partition_made_alone_and_in_a_range_has_the_same_data_version(
    lake: Lake, instance: dg.DagsterInstance
) -> None:
    run(lake, instance, numbered(some), tags=span(FIRST, THIRD))
    in_a_range = versions(instance, "numbered")
    assert len(set(in_a_range.values())) == 3
    for key in (FIRST, SECOND, THIRD):
        run(lake, instance, numbered(some), tags=span(key))
    assert versions(instance, "numbered") == in_a_range


def test_only_changed_content_has_another_data_version(lake: Lake, instance: dg.DagsterInstance) -> None:
    def second_changed(key: str) -> pd.DataFrame:
        return some(key).assign(value=some(key)["value"] + (key == SECOND))

    run(lake, instance, numbered(some), tags=span(FIRST, THIRD))
    before = versions(instance, "numbered")
    run(lake, instance, numbered(second_changed), tags=span(FIRST, THIRD))
    after = versions(instance, "numbered")
    assert [key for key in before if after[key] != before[key]] == [SECOND]


@pytest.mark.parametrize(("metadata", "counts"), [({}, True), ({"ordered": True}, True), ({"ordered": False}, False)])
def test_the_order_of_rows_counts_unless_the_asset_says_that_it_does_not(
    lake: Lake, instance: dg.DagsterInstance, metadata: dict[str, bool], counts: bool
) -> None:
    run(lake, instance, numbered(some, **metadata), tags=span(FIRST, SECOND))
    before = versions(instance, "numbered")
    run(lake, instance, numbered(lambda key: some(key)[::-1], **metadata), tags=span(FIRST, SECOND))
    assert (versions(instance, "numbered") != before) == counts


# Trouble


def test_making_a_partition_again_repairs_its_damaged_file(lake: Lake, instance: dg.DagsterInstance) -> None:
    run(lake, instance, things, tags=span(FIRST, SECOND))
    (damaged,) = [row["path"] for row in lake.files("things").to_pylist() if row["partition"] == SECOND]
    Path(lake.path("things"), damaged).write_bytes(b"PAR1 no more")

    with pytest.raises(LakeError, match=r"(?s)^things cannot be read .* materialize its partition again"):
        read_by(lake, instance, None, partitions=DAYS, tags=span(SECOND))
    assert len(read_by(lake, instance, None, partitions=DAYS, tags=span(FIRST))) == 3

    run(lake, instance, things, tags=span(SECOND))
    assert len(read_by(lake, instance, None, partitions=DAYS, tags=span(SECOND))) == 3


def test_reading_an_asset_that_was_never_made_says_to_make_it(lake: Lake, instance: dg.DagsterInstance) -> None:
    with pytest.raises(LakeError, match=r"^things is not in the lake at .*; materialize it first\."):
        read_by(lake, instance, None, partitions=DAYS, tags=span(SECOND))
