"""The landing zone on S3: what its dates and listings leave open costs no file, and few requests."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient
from hypothesis import given
from hypothesis import strategies as st

import resources.landing_s3
from resources.landing import LandingZone
from resources.landing_files import LandedFile
from resources.landing_s3 import OVERLAP_NANOSECONDS, SECOND, Bucket, Place
from tests.s3 import S3, free_port, s3_server
from tilth.settings import Deployment

PAGE = 50  # names a listing request, in place of S3's 1,000
HOUR = 3600


@pytest.fixture
def landing(s3: S3) -> LandingZone:
    return zone(s3, s3.bucket())


def zone(s3: S3, bucket: str, prefix: str = "/landing") -> LandingZone:
    return LandingZone(uri=f"s3://{bucket}{prefix}", s3_endpoint_url=s3.endpoint_url, s3_region=s3.region)


def bucket_of(landing: LandingZone) -> str:
    return landing.uri.split("/")[2]


@contextmanager
def counted(client: BaseClient, operation: str = "ListObjectsV2") -> Iterator[list[dict[str, Any]]]:
    """The requests that the client makes meanwhile."""
    requests: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: object) -> None:
        requests.append(params)

    client.meta.events.register(f"before-call.s3.{operation}", note)
    yield requests
    client.meta.events.unregister(f"before-call.s3.{operation}", note)


def names(files: Sequence[LandedFile]) -> list[str]:
    return [file.name for file in files]


def version(name: str, second: int, etag: str = "", table: str = "sales") -> LandedFile:
    return LandedFile(table, name, name, second * SECOND, f"{second * SECOND}-{etag}", 1)


def test_the_settings_of_a_deployment_are_enough(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.bucket()
    monkeypatch.setenv("TILTH_LANDING_URI", f"s3://{bucket}/landing/")
    monkeypatch.setenv("TILTH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("TILTH_S3_REGION", s3.region)
    landing = LandingZone.of(Deployment())
    landing.put("sales", "2020-01-01.csv.gz", b"abc")

    stored = s3.client.get_object(Bucket=bucket, Key="landing/sales/2020-01-01.csv.gz")
    assert stored["Body"].read() == landing.read("sales", "2020-01-01.csv.gz") == b"abc"
    assert landing.path_of("sales", "2020-01-01.csv.gz") == f"s3://{bucket}/landing/sales/2020-01-01.csv.gz"


def test_hidden_foreign_and_nested_keys_are_not_listed(s3: S3, landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"")
    for stray in [
        "elsewhere/2020-01-09.csv.gz",
        "landing",
        "landing/README",
        "landing/sales/",
        "landing/sales/.2020-01-02.csv.gz",
        "landing/sales/2020-01-03.csv.gz.part",
        "landing/sales/other.csv",
        "landing/sales/nested/2020-01-04.csv.gz",
        "landing/.trash/2020-01-05.csv.gz",
    ]:
        s3.client.put_object(Bucket=bucket_of(landing), Key=stray, Body=b"x")

    assert names(landing.files()) == names(landing.arrivals()[0]) == ["2020-01-01.csv.gz"]


def test_a_bucket_without_a_prefix_and_names_that_an_address_must_quote_work(s3: S3) -> None:
    landing = zone(s3, s3.bucket(), "")
    landing.put("sales & größe", "2020 01+01%.csv.gz", b"abc")

    assert [(file.table, file.name) for file in landing.files()] == [("sales & größe", "2020 01+01%.csv.gz")]
    assert landing.read("sales & größe", "2020 01+01%.csv.gz") == b"abc"
    _, cursor = landing.arrivals()
    assert landing.arrivals(cursor)[0] == []


def test_the_next_day_is_told_at_once_and_a_day_sent_again_when_everything_is_listed(
    landing: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("2020-01-01", "2020-01-02"):
        landing.put("sales", f"{day}.csv.gz", b"")
    found, cursor = landing.arrivals()
    assert names(found) == ["2020-01-01.csv.gz", "2020-01-02.csv.gz"]

    landing.put("sales", "2020-01-03.csv.gz", b"")
    landing.put("sales", "2020-01-01.csv.gz", b"again")
    landing.put("shops", "shops.csv", b"")
    found, cursor = landing.arrivals(cursor)
    assert names(found) == ["2020-01-03.csv.gz"]
    assert landing.arrivals(cursor)[0] == []

    monkeypatch.setattr(resources.landing_s3, "WHOLE_LISTING_NANOSECONDS", 0)
    found, cursor = landing.arrivals(cursor)
    assert sorted(names(found)) == ["2020-01-01.csv.gz", "shops.csv"]
    assert landing.arrivals(cursor)[0] == []


def test_a_reader_with_a_cursor_of_another_landing_zone_is_told_everything(s3: S3, tmp_path: Path) -> None:
    zones = [zone(s3, s3.bucket()), zone(s3, s3.bucket()), LandingZone(uri=str(tmp_path))]
    for landing in zones:
        landing.put("sales", "2020-01-01.csv.gz", b"")
    time.sleep(1.1)  # a file on disk counts as landed a second after its rename
    cursors = [landing.arrivals()[1] for landing in zones]

    told = [[len(landing.arrivals(cursor)[0]) for cursor in cursors] for landing in zones[:2]]
    assert told == [[0, 1, 1], [1, 0, 1]]
    assert [len(zones[2].arrivals(cursor)[0]) for cursor in cursors[:2]] == [1, 1]


def test_two_versions_of_one_second_are_two_arrivals(s3: S3, landing: LandingZone) -> None:
    # Until both fall into one second, as S3 writes it.
    arrivals: set[LandedFile] = set()
    for _ in range(20):
        arrivals.clear()
        for data in (b"one", b"two"):
            landing.put("sales", "2020-01-01.csv.gz", data)
            arrivals |= set(landing.files())
        if len({file.arrived_ns for file in arrivals}) == 1:
            break

    one, two = arrivals
    assert one.arrived_ns == two.arrived_ns
    assert one.arrival != two.arrival
    _, place = Place(landing.uri).after_everything([one], one.arrived_ns)
    assert place.after_everything([two], two.arrived_ns)[0] == [two]


def test_an_upload_in_parts_is_told_when_it_is_complete_and_once(s3: S3, landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"")
    _, cursor = landing.arrivals()
    upload = {"Bucket": bucket_of(landing), "Key": "landing/sales/2020-01-02.csv.gz"}
    upload["UploadId"] = s3.client.create_multipart_upload(**upload)["UploadId"]
    parts = []
    for number, part in enumerate([b"a" * 5 * 2**20, b"b"], start=1):
        tag = s3.client.upload_part(**upload, PartNumber=number, Body=part)["ETag"]
        parts.append({"PartNumber": number, "ETag": tag})
        assert landing.arrivals(cursor)[0] == []
    s3.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})

    (file,), cursor = landing.arrivals(cursor)
    assert (file.name, file.size) == ("2020-01-02.csv.gz", 5 * 2**20 + 1)
    assert len(landing.read("sales", file.name)) == file.size
    assert landing.arrivals(cursor)[0] == []


def test_an_upload_that_began_within_the_hour_before_what_was_told_is_told() -> None:
    # moto dates an upload in parts by its end; S3 by its beginning, so that it shows up among what was told long ago.
    now = 10 * HOUR
    day_2 = version("2020-01-02", now)
    _, place = Place("s3://b").after_everything([day_2], now * SECOND)
    day_1 = version("2020-01-01", now - HOUR + 1)

    found, place = place.after_everything([day_1, day_2], (now + 60) * SECOND)
    assert found == [day_1]
    assert place.after_everything([day_1, day_2], (now + 120) * SECOND)[0] == []


def test_an_upload_of_a_greater_name_is_told_however_long_ago_it_began() -> None:
    day_1, day_2 = version("2020-01-01", 100 * HOUR), version("2020-01-02", HOUR)
    _, place = Place("s3://b").after_everything([day_1], 100 * HOUR * SECOND)

    found, then = place.after_greatest([day_2])
    assert found == [day_2]
    assert then.after_greatest([day_2])[0] == then.after_everything([day_1, day_2], 101 * HOUR * SECOND)[0] == []
    assert place.after_everything([day_1, day_2], 101 * HOUR * SECOND)[0] == [day_2]


def test_a_date_in_the_future_hides_nothing_that_comes_before_it() -> None:
    now = 10 * HOUR
    wrong = version("2020-01-02", now + 1000 * HOUR)
    found, place = Place("s3://b").after_everything([wrong], now * SECOND)
    assert found == [wrong]
    day_1 = version("2020-01-01", now + 60)
    assert place.after_everything([day_1, wrong], (now + 60) * SECOND)[0] == [day_1]


@pytest.mark.parametrize(("clock", "everything"), [(0, False), (59, False), (60, True), (-1, True)])
def test_everything_is_listed_once_a_minute_and_while_a_clock_is_behind(clock: int, everything: bool) -> None:
    _, place = Place("s3://b").after_everything([version("2020-01-01", HOUR)], HOUR * SECOND)
    assert place.wants_everything((HOUR + clock) * SECOND) is everything


EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 2 * HOUR)),
    st.tuples(st.just("put"), st.integers(0, 5), st.integers(0, HOUR)),
    st.tuples(st.just("delete"), st.integers(0, 5)),
    st.tuples(st.just("look"), st.booleans()),
)


@given(st.lists(EVENTS, max_size=60))
def test_every_version_that_stays_until_everything_is_listed_is_told_once(events: list[tuple]) -> None:
    now, stored, told, place = 1000 * HOUR, {}, [], Place("s3://b")
    for number, event in enumerate([*events, ("look", True)]):
        match event:
            case "wait", seconds:
                now += seconds
            case "put", name, upload_seconds:
                stored[name] = version(f"2020-01-0{name}", now - upload_seconds, etag=str(number))
            case "delete", name:
                stored.pop(name, None)
            case "look", True:
                news, place = place.after_everything(list(stored.values()), now * SECOND)
                told += news
                assert set(stored.values()) <= set(told)
            case "look", False:
                listed = [file for file in stored.values() if file.name > place.greatest.get("sales", "")]
                news, place = place.after_greatest(listed)
                told += news
                assert set(listed) <= set(told)
        place = Place.of(place.cursor(), place.uri)
    assert len(told) == len(set(told))


def test_an_hour_later_the_cursor_has_forgotten_what_was_told() -> None:
    year = [version(f"{n:05}", HOUR) for n in range(5000)]
    _, place = Place("s3://b").after_everything(year, HOUR * SECOND)
    assert len(place.cursor()) < 80_000
    late = version("99999", HOUR + OVERLAP_NANOSECONDS // SECOND + 1)
    _, place = place.after_everything([*year, late], late.arrived_ns)
    assert len(place.cursor()) < 200
    assert place.after_everything([*year, late], late.arrived_ns)[0] == []


def test_a_look_between_two_listings_of_everything_is_one_request_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server({"MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)}) as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "only-for-this-test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "only-for-this-test")
        bucket = Bucket(f"s3://{server.bucket()}/landing", server.endpoint_url, server.region)
        bucket.put("shops", "shops.csv", b"")
        with ThreadPoolExecutor(8) as writers:
            list(writers.map(lambda n: bucket.put("sales", f"{n:06}.csv.gz", b""), range(5 * PAGE)))

        with counted(bucket.client) as requests:
            found, cursor = bucket.arrivals(None)
        assert (len(found), len(requests)) == (5 * PAGE + 1, 1 + 5 + 1)  # the tables, the sales, the shops
        bucket.put("sales", "999999.csv.gz", b"")
        with counted(bucket.client) as requests:
            found, cursor = bucket.arrivals(cursor)
        assert (names(found), len(requests)) == (["999999.csv.gz"], 2)
        with counted(bucket.client) as requests:
            assert len(bucket.files("shops")) == 1
        assert len(requests) == 1


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [("http://storage.example:9000", "http://storage.example:9000/bucket/"), ("", "https://bucket.s3.")],
)
def test_an_address_has_the_bucket_in_its_path_where_an_endpoint_is_named(s3: S3, endpoint: str, address: str) -> None:
    client = Bucket("s3://bucket", endpoint, "us-east-1").client
    assert client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "a"}).startswith(address)


def test_a_bucket_that_nothing_has_landed_in_is_there(s3: S3) -> None:
    landing = zone(s3, s3.bucket())
    landing.check_there()
    assert landing.files() == []


def test_a_missing_bucket_is_named_with_what_s3_said_and_the_next_step(s3: S3) -> None:
    landing = zone(s3, "nobody-made-this")
    said = rf"s3://nobody-made-this/landing at {s3.endpoint_url}: S3 answered NoSuchBucket \(.*does not exist\); create"
    for attempt in (landing.files, landing.arrivals, lambda: landing.put("sales", "2020-01-01.csv.gz", b"")):
        with pytest.raises(FileNotFoundError, match=said):
            attempt()


def test_an_endpoint_that_nobody_answers_at_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch, s3: S3) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    landing = LandingZone(uri="s3://bucket/landing", s3_endpoint_url=endpoint, s3_region="us-east-1")
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=rf"s3://bucket/landing at {endpoint}.*check TILTH_S3_ENDPOINT_URL"):
        landing.files()
    assert time.monotonic() - started < 20


def test_a_wrong_credential_is_said_to_be_one_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    said = r"S3 answered InvalidAccessKeyId .*; check the credentials"
    with (
        s3_server({"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as server,
        pytest.raises(PermissionError, match=said) as error,
    ):
        zone(server, "bucket").files()
    assert "AKIAWRONG" not in str(error.value)
    assert "very-secret" not in str(error.value)


def test_without_any_credential_the_places_to_look_at_are_named(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionError, match=r"Unable to locate credentials.*variables, profile, role"):
        zone(s3, "bucket").files()
