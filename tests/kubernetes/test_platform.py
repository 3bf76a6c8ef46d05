"""The release at work: files land and predictions come, pods are deleted in mid-run, releases come and go.

All on one release. What can happen at once does: the days that land in the beginning flow on under all that is deleted.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.kubernetes.cluster import CHART, RELEASE, Platform, restricted, until

OWN, RUNS = "slow_in_its_own_pod", "slow_in_the_runs_pod"

LOCATIONS = """workspaceOrError { ... on Workspace { locationEntries { name loadStatus
    locationOrLoadError { __typename ... on PythonError { message } } } } }"""
# A plan comes from the code server itself, where of a location the webserver tells what it remembers.
PLAN = """executionPlanOrError(mode: "default", pipeline: {repositoryLocationName: "trial",
    repositoryName: "__repository__", pipelineName: "fan"}) { __typename ... on PythonError { message } }"""
TICK = """query($name: String!) { sensorOrError(sensorSelector: {repositoryLocationName: "flights",
    repositoryName: "__repository__", sensorName: $name}) { ... on Sensor { sensorState { ticks(limit: 1) {
    timestamp } } } } }"""
FAILED = """{ runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { runId assetSelection { path }
    repositoryOrigin { repositoryLocationName } } } } }"""
RELOAD = """mutation { reloadRepositoryLocation(repositoryLocationName: "trial") { __typename } }"""
ENDED = "query($run: ID!) { runOrError(runId: $run) { ... on Run { endTime } } }"

# Ends the process that executes the run: of those with its command line the first, which forks the others, and not the
# container's first, which no signal from inside ends.
KILL_RUN = """
import os, pathlib, signal
commands = {int(path.parent.name): path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")}
runs = {pid for pid, command in commands.items() if b"execute_run" in command}
os.kill(min(runs - {1, os.getpid()}), signal.SIGKILL)
"""
# The modules that a run or a step would have to compile, each time anew: its image cannot be written to.
NOT_COMPILED = """
import os, sys
import dagster._daemon.cli, dagster_webserver.cli, sklearn.ensemble, tilth._dagster.preload
tilth._dagster.preload.preload("assets.flights.definitions")
cached = {name: getattr(module, "__cached__", None) for name, module in sys.modules.items()}
print([name for name, file in cached.items() if file and not os.path.exists(file)])
"""
ROWS = """
import json
from resources.lake import Lake
from tilth.settings import Deployment
lake = Lake.of(Deployment())
print(json.dumps({asset: lake.read(asset).to_pylist() for asset in %r}, default=str))
"""


@pytest.fixture(scope="module")
def landed(platform: Platform) -> float:
    """January, which the first models need, and the day after it, which they score, land; when they had."""
    platform.in_location("flights", "python", "-m", "assets.flights.replay", "--through", "2013-02-01")
    return time.monotonic()


@pytest.fixture(scope="module")
def deleted(platform: Platform, landed: float) -> dict[str, str]:
    """Runs at once and, as soon as each is in the middle of its work, something is deleted; by what, the run."""

    def delete(what: str, asset: str, partition: str) -> str:
        run = platform.launch(asset, partition=partition)
        at_work(platform, run)
        if what == "process":
            platform.kubectl("exec", platform.running_pod(run, "run_worker"), "--", "python", "-c", KILL_RUN)
        elif what in ("run_worker", "step_worker"):
            platform.kubectl("delete", "pod", "--wait=false", platform.running_pod(run, what))
        else:
            of_component = f"app.kubernetes.io/component={what}"
            platform.kubectl("delete", "pods", "--wait=false", "--selector", of_component)
        return run

    what = [("step_worker", OWN, "a"), ("run_worker", OWN, "b"), ("process", RUNS, "a"), ("daemon", RUNS, "b")]
    with ThreadPoolExecutor(len(what)) as at_once:
        runs = dict(zip([name for name, *_ in what], at_once.map(lambda one: delete(*one), what), strict=True))
    # Dagster gives up a retry that finds its code location away; a location with two replicas never is.
    for name in ("run_worker", "process"):
        platform.retry_of(runs[name])
    return runs | {"location": delete("location-trial", RUNS, "c")}


def at_work(platform: Platform, *runs: str) -> None:
    """Return when a step of each is under way."""
    for run in runs:
        until(lambda run=run: platform.said(run, "STEP_START"), f"a step of run {run} is under way")


def ended_right(platform: Platform, run: str) -> list[str]:
    """The run, and those that tried it again until one succeeded."""
    runs = [run]
    while platform.ended(runs[-1]) == "FAILURE":
        runs.append(platform.retry_of(runs[-1]))
    assert platform.status(runs[-1]) == "SUCCESS"
    return runs


def stored(platform: Platform, asset: str, runs: Sequence[str]) -> list[str]:
    """The partitions of an asset that these runs recorded, each as often as they did."""
    return sorted(found["partition"] for found in platform.materializations(asset) if found["runId"] in runs)


def test_the_ui_answers_through_its_service_with_every_location_loaded(platform: Platform) -> None:
    assert asked(platform, "version")["version"]
    found = asked(platform, LOCATIONS)["workspaceOrError"]["locationEntries"]
    assert {entry["name"]: entry["locationOrLoadError"]["__typename"] for entry in found} == {
        "flights": "RepositoryLocation", "trial": "RepositoryLocation",
    }, found  # fmt: skip


def asked(platform: Platform, query: str) -> dict[str, Any]:
    """What the webserver answers by its Service; once, and not again when it does not."""
    service = f"/api/v1/namespaces/{platform.namespace}/services/{platform.service}:http/proxy"
    answer = platform.kubectl("get", "--raw", f"{service}/graphql?{urlencode({'query': '{' + query + '}'})}")
    return json.loads(answer)["data"]


def test_the_image_has_the_bytecode_of_all_that_is_imported(platform: Platform) -> None:
    assert platform.in_location("flights", "python", "-c", NOT_COMPILED).splitlines()[-1] == "[]"


def test_the_api_server_takes_all_of_the_production_example(platform: Platform) -> None:
    example = ["--values", str(CHART / "values-production.yaml")]
    rendered = platform.helm("template", "production", str(CHART), *example, "--validate").stdout
    said = platform.kubectl("apply", "--dry-run=server", "--filename", "-", text=rendered).splitlines()
    assert len(said) > 20
    assert [line for line in said if not line.endswith("created (server dry run)")] == []


def test_a_step_whose_pod_is_deleted_begins_again_in_another(platform: Platform, deleted: dict[str, str]) -> None:
    run = deleted["step_worker"]
    assert ended_right(platform, run) == [run]
    assert platform.said(run, "STEP_UP_FOR_RETRY") == [f"{OWN} a: its pod was deleted. It begins again."]
    assert stored(platform, OWN, [run]) == ["a"]


def test_a_run_whose_pod_is_deleted_is_tried_again_and_leaves_no_step_behind(
    platform: Platform, deleted: dict[str, str]
) -> None:
    runs = ended_right(platform, deleted["run_worker"])
    assert len(runs) == 2
    platform.leaves_no_pod(runs[0])
    assert stored(platform, OWN, runs) == ["b"]


def test_a_run_whose_process_is_killed_is_tried_again(platform: Platform, deleted: dict[str, str]) -> None:
    runs = ended_right(platform, deleted["process"])
    assert len(runs) == 2
    assert stored(platform, RUNS, runs) == ["a"]


def test_a_run_goes_on_without_the_daemon_and_the_sensors_do_with_the_next(
    platform: Platform, deleted: dict[str, str]
) -> None:
    run = deleted["daemon"]
    assert ended_right(platform, run) == [run]
    assert stored(platform, RUNS, [run]) == ["b"]
    daemon = max(moment(pod["metadata"]["creationTimestamp"]) for pod in of_component(platform, "daemon"))

    def ticked() -> bool:
        (tick,) = platform.graphql(TICK, name="landed_files")["sensorOrError"]["sensorState"]["ticks"]
        return tick["timestamp"] > daemon

    until(ticked, "the sensor is looked at by the new daemon")


def test_a_run_goes_on_when_its_code_location_is_deleted(platform: Platform, deleted: dict[str, str]) -> None:
    run = deleted["location"]
    assert ended_right(platform, run) == [run]
    assert stored(platform, RUNS, [run]) == ["c"]


def test_files_that_land_are_all_it_takes_for_predictions(platform: Platform, landed: float) -> None:
    scored = until(lambda: platform.materializations("predictions/delays"), "predictions of the first day", 900)
    print(f"predictions {time.monotonic() - landed:.0f} s after the files")
    assert [found["partition"] for found in scored] == ["2013-02-01"]
    rows = json.loads(platform.in_location("flights", "python", "-c", ROWS % ["predictions/delays"]))
    assert len(rows["predictions/delays"]) > 800
    # What a step made of many days is seen whole: nothing is started for some of them.
    runs = {
        key: {made["runId"] for made in platform.materializations(key)} for key in ("raw/flights", "staging/flights")
    }
    assert len(runs["staging/flights"]) <= len(runs["raw/flights"])
    failed = platform.graphql(FAILED)["runsOrError"]["results"]
    assert [run for run in failed if run["repositoryOrigin"]["repositoryLocationName"] == "flights"] == []


def test_runs_end_right_when_the_database_goes_away_meanwhile(platform: Platform) -> None:
    launched = {asset: platform.launch(asset, partition="c") for asset in (OWN, RUNS)}
    at_work(platform, *launched.values())
    platform.kubectl("delete", "pod", "--wait=false", f"{RELEASE}-postgresql-0")
    for asset, run in launched.items():
        runs = ended_right(platform, run)
        assert stored(platform, asset, runs) == ["c"]


def test_an_upgrade_migrates_first_and_neither_runs_nor_code_locations_notice(platform: Platform) -> None:
    before = {pod["metadata"]["name"] for pod in at_present(platform)}
    with answering(platform), ThreadPoolExecutor() as background:
        # Both change what the pods read at their start.
        changed = {"env": {"NEW": "1"}, "pythonLogs": {"pythonLogLevel": "WARNING"}}
        changed |= {"dagsterWebserver": {"enableReadOnly": True}}
        upgrade = background.submit(lambda: platform.install("upgrade", **changed))
        until(lambda: of_component(platform, "migrate"), "the tables are being migrated")
        run = platform.launch(OWN, RUNS, partition="a")
        upgrade.result()
        assert ended_right(platform, run) == [run]
    assert settings(platform)["NEW"] == "1"
    (migrated,) = of_component(platform, "migrate")
    ended = migrated["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 0
    replaced_under(platform, run, before, moment(ended["finishedAt"]))


def test_the_read_only_webserver_of_that_upgrade_answers_and_starts_nothing(platform: Platform) -> None:
    service = f"{RELEASE}-webserver-read-only"
    read_only = Platform(platform.namespace, platform.values, service)
    try:
        entries = asked(read_only, LOCATIONS)["workspaceOrError"]["locationEntries"]
        reloaded = read_only.graphql(RELOAD)["reloadRepositoryLocation"]
    finally:
        read_only.close()
    assert {entry["locationOrLoadError"]["__typename"] for entry in entries} == {"RepositoryLocation"}
    assert reloaded["__typename"] == "UnauthorizedError"
    assert {pod["spec"]["serviceAccountName"] for pod in of_component(platform, "webserver-read-only")} == {service}
    account = ["--as", f"system:serviceaccount:{platform.namespace}:{service}"]
    rights = platform.kubectl("auth", "can-i", "--list", *account)
    assert not {"*.*", "jobs.batch", "pods", "secrets", "configmaps"} & set(rights.split())


def test_a_rollback_does_not_disturb_them_either(platform: Platform) -> None:
    before = {pod["metadata"]["name"] for pod in at_present(platform)}
    run = platform.launch(OWN, RUNS, partition="b")
    at_work(platform, run)
    with answering(platform):
        began = time.time()
        platform.helm("rollback", RELEASE, "--wait", "--timeout", "5m")
        assert ended_right(platform, run) == [run]
    assert "NEW" not in settings(platform)
    replaced_under(platform, run, before, began - 1)


@contextmanager
def answering(platform: Platform) -> Iterator[None]:
    """Meanwhile the UI is asked for its locations, and a code server for a plan, each second; all must be there."""
    answers: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(1):
            try:
                found = asked(platform, LOCATIONS + PLAN)
            except (AssertionError, ValueError) as error:
                answers.append(f"{datetime.now()}: {error}")
                continue
            kinds = [
                entry["locationOrLoadError"]["__typename"] for entry in found["workspaceOrError"]["locationEntries"]
            ]
            well = kinds == ["RepositoryLocation"] * 2
            well = well and found["executionPlanOrError"]["__typename"] == "ExecutionPlan"
            answers.append("" if well else f"{datetime.now()}: {found}")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()
    assert [answer for answer in answers if answer] == []
    assert len(answers) > 10


def of_component(platform: Platform, component: str) -> list[Any]:
    """The pods that a component ever had, gone or not."""
    label = "app.kubernetes.io/component"
    return [pod for pod in platform.seen.values() if pod["metadata"]["labels"][label] == component]


def at_present(platform: Platform) -> list[Any]:
    """The pods of webserver, daemon and code locations that nobody has deleted."""
    components = ["webserver", "daemon", "location-flights", "location-trial"]
    pods = [pod for component in components for pod in of_component(platform, component)]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def replaced_under(platform: Platform, run: str, before: set[str], since: float) -> None:
    """Every one of the platform's pods is another, made since that moment and while the run was in flight."""
    now = at_present(platform)
    assert len(now) == 4
    assert before.isdisjoint(pod["metadata"]["name"] for pod in now)
    began = [moment(pod["metadata"]["creationTimestamp"]) for pod in now]
    (of_run,) = platform.pods(run, "run_worker")
    ended = platform.graphql(ENDED, run=run)["runOrError"]["endTime"]
    assert since <= min(began)
    assert moment(of_run["metadata"]["creationTimestamp"]) <= min(began) < ended


def settings(platform: Platform) -> dict[str, str]:
    return json.loads(platform.kubectl("get", "configmap", f"{RELEASE}-settings", "--output", "json"))["data"]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_nothing_is_stored_twice_after_all_of_this(platform: Platform) -> None:
    rows = json.loads(platform.in_location("trial", "python", "-c", ROWS % [OWN, RUNS]))
    for asset in (OWN, RUNS):
        letters = [row["letter"] for row in rows[asset]]
        assert sorted(letters) == sorted({found["partition"] for found in platform.materializations(asset)})


def test_every_pod_that_there_ever_was_is_restricted(platform: Platform) -> None:
    """The last test: those of the other files are among them."""
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in platform.seen.values()}
    own = {"webserver", "webserver-read-only", "daemon", "location-flights", "location-trial", "postgresql"}
    assert components == own | {"pools", "migrate", "run_worker", "step_worker"}
    problems = {name: restricted(pod) for name, pod in platform.seen.items()}
    assert {name: found for name, found in problems.items() if found} == {}
