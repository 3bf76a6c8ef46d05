"""What arrives is made on in its own run, as far as conditions would ask for it and nothing else is waited for."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from tests.conftest import QUIET
from tilth.automation.conditions import on_changed_data, on_new_data
from tilth.automation.followers import with_followers
from tilth.automation.ranges import range_tags
from tilth.automation.sensor import automation_sensor
from tilth.versioning.inputs import OPTIONAL, REFERENCE

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
DAY, NEXT_DAY = "2013-01-02", "2013-01-03"
ONE_STEP = dg.BackfillPolicy.single_run()


class Chain:
    """Two sources, what joins them with a table beside, features of that and of the day before, and their scores."""

    def __init__(self, instance: dg.DagsterInstance, policy: dg.BackfillPolicy | None = ONE_STEP) -> None:
        def asset(key: str, deps: list[Any], condition: dg.AutomationCondition | None, **options: Any) -> Any:
            @dg.asset(key=key, deps=deps, automation_condition=condition, **options)
            def body() -> None: ...

            return body

        day: Any = {"partitions_def": DAYS, "backfill_policy": ONE_STEP}
        before = dg.TimeWindowPartitionMapping(
            start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
        )
        yesterday = dg.AssetDep("history", partition_mapping=before, metadata=OPTIONAL)
        lookup = dg.AssetDep("lookup", metadata=REFERENCE)
        self.instance = instance
        self.sensor = automation_sensor("sensor", dg.AssetSelection.all(), "All of them.")
        self.definitions = dg.Definitions(
            assets=[
                asset("freight", [], None, **day),
                asset("weather", [], None, **day),
                asset("lookup", [], None),
                asset("joined", ["freight", "weather", lookup], on_new_data(), **day),
                asset("history", ["joined"], on_new_data(), **day),
                asset(
                    "features",
                    ["joined", yesterday],
                    on_new_data(),
                    **day | {"backfill_policy": policy},
                ),
                asset("scores", ["features"], on_changed_data(), **day),
            ],
            sensors=[self.sensor],
        )
        self.cursor: str | None = None

    def made(self, *keys: str, partition: str | None = DAY, content: str = "first") -> None:
        for key in keys:
            tags = {"dagster/data_version": content}
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, tags=tags))

    def taken(self, *requests: dg.RunRequest) -> list[list[str]]:
        """What is taken along with each of these requests."""
        found = with_followers(requests, self.instance, self.definitions.get_repository_def(), dg.AssetSelection.all())
        return [
            [key.to_user_string() for key in new.asset_selection or () if key not in (old.asset_selection or ())]
            for old, new in zip(requests, found, strict=True)
        ]

    def asked(self) -> set[str]:
        """What the conditions ask for at the next look."""
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.definitions.get_repository_def()
        )
        evaluated = self.sensor.evaluate_tick(context)
        self.cursor = evaluated.cursor
        return {key.to_user_string() for request in evaluated.run_requests or () for key in request.asset_selection}

    def planned(self, request: dg.RunRequest) -> dg.DagsterRun:
        """A run of the request, which has not begun."""
        return self.instance.create_run_for_job(
            self.definitions.resolve_implicit_global_asset_job_def(),
            asset_selection=frozenset(request.asset_selection or ()),
            tags={"dagster/partition": request.partition_key} if request.partition_key else request.tags,
        )


def arrival(*keys: str, first: str = DAY, last: str | None = None) -> dg.RunRequest:
    selection = [dg.AssetKey(key) for key in keys]
    if last:
        return dg.RunRequest(run_key=f"{keys} {first}", asset_selection=selection, tags=range_tags(first, last))
    return dg.RunRequest(run_key=f"{keys} {first}", asset_selection=selection, partition_key=first)


BOTH = ("freight", "weather")
ALL = ["joined", "history", "features", "scores"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def chain(instance: dg.DagsterInstance) -> Chain:
    chain = Chain(instance)
    chain.made("lookup", partition=None)
    return chain


def test_a_new_day_is_made_on_in_its_own_run_for_which_nothing_is_asked_for_then(chain: Chain) -> None:
    chain.asked()
    assert chain.taken(arrival(*BOTH)) == [ALL]
    (request,) = with_followers(
        [arrival(*BOTH)], chain.instance, chain.definitions.get_repository_def(), dg.AssetSelection.all()
    )
    assert (request.run_key, request.partition_key) == (arrival(*BOTH).run_key, DAY)
    chain.planned(request)
    assert chain.asked() == set()
    made = chain.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        QUIET, instance=chain.instance, asset_selection=list(request.asset_selection or ()), partition_key=DAY
    )
    assert made.success
    assert chain.asked() == set()


def test_a_range_of_days_is_made_on_as_one(chain: Chain) -> None:
    assert chain.taken(arrival(*BOTH, first=DAY, last="2013-01-20")) == [ALL]


def test_a_day_that_is_sent_again_is_made_on_as_far_as_every_refresh_is(chain: Chain) -> None:
    chain.made(*BOTH, *ALL)
    assert chain.taken(arrival("freight")) == [["joined", "history", "features"]]


def test_a_day_waits_for_what_it_reads_beside(chain: Chain, instance: dg.DagsterInstance) -> None:
    assert chain.taken(arrival("freight")) == [[]]
    chain.made("weather")
    assert chain.taken(arrival("freight")) == [ALL]
    instance.wipe_assets([dg.AssetKey("lookup")])
    assert chain.taken(arrival("freight")) == [[]]


def test_a_day_whose_weather_is_being_made_waits_for_it(chain: Chain) -> None:
    chain.made(*BOTH, *ALL)
    chain.planned(arrival("weather"))
    assert chain.taken(arrival("freight")) == [[]]


def test_features_wait_for_the_day_before_that_is_being_made(chain: Chain) -> None:
    chain.planned(arrival(*BOTH, "joined", "history"))
    assert chain.taken(arrival(*BOTH, first=NEXT_DAY)) == [["joined", "history"]]


def test_of_days_that_one_run_cannot_take_together_no_more_is_taken_along(instance: dg.DagsterInstance) -> None:
    chain = Chain(instance, policy=None)
    chain.made("lookup", partition=None)
    assert chain.taken(arrival(*BOTH)) == [ALL]
    assert chain.taken(arrival(*BOTH, last=NEXT_DAY)) == [["joined", "history"]]


def test_days_of_which_one_lacks_what_it_reads_are_not_made_on_together(chain: Chain) -> None:
    chain.made("weather")
    assert chain.taken(arrival("freight", last=NEXT_DAY)) == [[]]


def test_what_two_requests_share_is_made_of_both_later(chain: Chain) -> None:
    chain.made("weather")
    assert chain.taken(arrival("freight"), arrival("weather", last=NEXT_DAY)) == [[], []]
    assert chain.taken(arrival("freight"), arrival(*BOTH, first=NEXT_DAY)) == [ALL, ALL]


def test_a_table_without_days_is_made_on_too(chain: Chain) -> None:
    assert chain.taken(dg.RunRequest(asset_selection=[dg.AssetKey("lookup")])) == [[]]


def test_a_check_with_a_condition_of_its_own_is_not_taken_along(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def source() -> None: ...

    @dg.asset(deps=[source], automation_condition=on_new_data())
    def target() -> None: ...

    @dg.asset_check(asset=target, automation_condition=dg.AutomationCondition.newly_requested())
    def by_itself() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    @dg.asset_check(asset=target)
    def each_time() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    repository = dg.Definitions(assets=[source, target], asset_checks=[by_itself, each_time]).get_repository_def()
    (request,) = with_followers(
        [dg.RunRequest(asset_selection=[source.key])], instance, repository, dg.AssetSelection.all()
    )
    assert request.asset_selection == [source.key, target.key]
    assert request.asset_check_keys == [dg.AssetCheckKey(target.key, "each_time")]
