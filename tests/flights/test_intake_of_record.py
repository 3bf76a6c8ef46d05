"""The intake on the real record: landed as the feeds would, it comes back as it was, but for one wrong observation."""

from datetime import date
from io import BytesIO

import pandas as pd
import pyarrow as pa
import pytest

from assets.flights import replay
from assets.flights.tables import TABLES
from resources.ingestion.validation import Batch, Count, read_files
from resources.landing import LandingZone

TABLE = {table.name: table for table in TABLES}


@pytest.fixture(scope="module")
def february(tmp_path_factory: pytest.TempPathFactory) -> LandingZone:
    landing = LandingZone(uri=str(tmp_path_factory.mktemp("landing")))
    replay.land_days(landing, date(2013, 2, 1), date(2013, 2, 28))
    replay.land_reference(landing)
    return landing


def take_landed(landing: LandingZone, table: str) -> Batch:
    files = landing.files(table)
    return read_files(TABLE[table], [(file.name, file.partition, landing.read(table, file.name)) for file in files])


def of_record(table: str) -> pd.DataFrame:
    return pd.read_csv(BytesIO(replay.record(table)), na_values=["NA"], keep_default_na=False)


@pytest.mark.parametrize("table", ["flights", "weather"])
def test_a_month_of_the_record_comes_back_exactly(february: LandingZone, table: str) -> None:
    intake = take_landed(february, table)
    expected = of_record(table).query("month == 2")
    if table == "weather":
        expected = expected.query("not wind_speed > 250")
    expected = expected.assign(time_hour=pd.to_datetime(expected["time_hour"]).dt.as_unit("us"))
    day_column, *columns = intake.rows.columns
    order = ["month", "day", "origin", "time_hour", *([] if table == "weather" else ["carrier", "flight", "minute"])]

    found = intake.arrow.to_pandas().sort_values(order, ignore_index=True)
    expected = expected.sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(found[columns], expected[columns], check_dtype=False)
    assert (pd.to_datetime(found[day_column]) == pd.to_datetime(expected[["year", "month", "day"]])).all()
    assert intake.arrow.schema == TABLE[table].arrow_schema()
    assert not intake.unreadable


@pytest.mark.parametrize("table", ["planes", "airlines", "airports"])
def test_a_reference_table_comes_back_exactly(february: LandingZone, table: str) -> None:
    intake = take_landed(february, table)

    pd.testing.assert_frame_equal(intake.arrow.to_pandas(), of_record(table), check_dtype=False)
    assert intake.counts == {None: Count(len(intake.rows), 0)}


def test_the_one_wrong_observation_of_the_record_is_rejected_by_its_line(february: LandingZone) -> None:
    intake = take_landed(february, "weather")

    assert intake.rejected.to_pylist() == [
        {
            "partition_day": date(2013, 2, 12),
            "file": "2013-02-12.csv.gz",
            "line": 5,
            "column": "wind_speed",
            "reason": "wind_speed: 1048.36058 is not in 0..250",
            "record": "EWR,2013,2,12,3,39.02,26.96,61.63,260,1048.36058,NA,0,1008.3,10,2013-02-12T08:00:00Z",
        }
    ]
    assert intake.counts["2013-02-12"] == Count(rows=71, rejected=1)
    assert sum(count.rows for count in intake.counts.values()) == len(intake.rows)


def test_a_batch_is_judged_as_its_files_one_by_one(february: LandingZone) -> None:
    files = february.files("weather")[:20]
    batch = [(file.name, file.partition, february.read("weather", file.name)) for file in files]

    together, apart = read_files(TABLE["weather"], batch), [read_files(TABLE["weather"], [file]) for file in batch]
    assert together.arrow.equals(pa.concat_tables([intake.arrow for intake in apart]).combine_chunks())
    assert together.rejected.equals(pa.concat_tables([intake.rejected for intake in apart]).combine_chunks())
