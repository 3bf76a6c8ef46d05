"""What grows with the graph: locations of up to a thousand assets over a thousand days, on a live daemon."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from pydantic import SecretStr

from benchmarks.orchestration import BIN, ROOT, Commands
from benchmarks.report import Figure, load_average, report
from resources.alert_log import AlertLog
from resources.lake import Lake
from tests import synthetic
from tilth.automation.reconciler import reconciler
from tilth.observability.alerts import alert_sensor
from tilth.observability.freshness import partition_lag_checks

SIZES = (100, 300, 1000)
DAYS, DAYS_MADE, MINUTES = 1000, 30, 3


def size(folder: Path) -> list[Figure]:
    """How long a location loads, a look with nothing new takes, and one at all conditions, as there is each minute."""
    load, figures = load_average(), {}
    for assets in SIZES:
        of_size = {"SYNTHETIC_ASSETS": str(assets), "SYNTHETIC_DAYS": str(DAYS)}
        commands = Commands(folder)
        home = commands.dagster(f"loading {assets} assets", "tests.synthetic", "definitions", "validate", **of_size)
        figures[assets] = (commands.median(f"loading {assets} assets"), *seconds_of_looks(home, assets, of_size))
        print("  {:>5} assets x {} days: loads in {:.1f} s, a look takes {:.2f} s, at all conditions {:.1f} s".format(
            assets, DAYS, *figures[assets]
        ))  # fmt: skip
    loads, look, _ = figures[SIZES[-1]]
    largest = f"{SIZES[-1]:,} assets x {DAYS:,} days"
    at_all = {assets: figures[assets][2] for assets in SIZES}
    return [
        Figure(f"{largest}: load", loads, "s", "<= 15", load),
        Figure(f"{largest}: a look with nothing to do", look, "s", "<= 10", load),
        *(
            Figure(f"{n:,} assets x {DAYS:,} days: the minute's look at all conditions", at_all[n], "s", "<= 5", load)
            for n in SIZES
        ),
        *(
            Figure(f"from {fewer:,} to {more:,} assets: growth of that look / of conditions", growth, "x", "<= 1", load)
            for fewer, more in pairwise(SIZES)
            # The first layer comes from outside and has none.
            for growth in [at_all[more] / at_all[fewer] * (fewer - synthetic.LAYER) / (more - synthetic.LAYER)]
        ),
        *looks_of_own_sensors(folder / "own", SIZES[-1]),
    ]


def looks_of_own_sensors(home: Path, assets: int) -> list[Figure]:
    """Of reconciler, lag and alerts: a look with nothing new, and one after a new day of the first layer, in a process
    that has looked before; a look of the reconciler in all of its ticks together. And its longest tick of all.
    """
    load, made = load_average(), synthetic.synthetic(assets, DAYS)
    keys = [dg.AssetKey(synthetic.name_of(number).split("/")) for number in range(assets)]
    checks, lag = partition_lag_checks(keys)
    # Longer than this takes, so that it asks for nothing and the daemon is not needed.
    missed = reconciler("reconciler", dg.AssetSelection.all(), patience_seconds=86_400)
    alerts = alert_sensor(AlertLog(Lake(str(home / "lake")), "synthetic"), SecretStr(""))
    sensors = [missed, lag, alerts]
    repository = dg.Definitions(made.assets, asset_checks=checks, sensors=sensors).get_repository_def()
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "platform/dagster.yaml").read_text())
    os.environ["DAGSTER_HOME"] = str(home)
    cursors: dict[str, str | None] = {}
    ticks: list[float] = []

    def look(sensor: dg.SensorDefinition) -> float:
        ticks.clear()
        unfinished = True
        while unfinished:
            context = dg.build_sensor_context(instance, cursor=cursors.get(sensor.name), repository_def=repository)
            began = time.perf_counter()
            found = sensor.evaluate_tick(context)
            ticks.append(time.perf_counter() - began)
            unfinished = "still to be judged" in (found.skip_message or "")
            cursors[sensor.name] = found.cursor
        print(f"  {sensor.name}: {sum(ticks):.2f} s in {len(ticks)} ticks")
        return sum(ticks)

    figures = []
    with dg.DagsterInstance.from_config(str(home)) as instance:
        make_days(instance, assets)
        longest = 0.0
        for sensor in (*sensors, *sensors):  # also at what the first look itself records
            look(sensor)
            longest = max(longest, *ticks) if sensor is missed else longest
        largest = f"{assets:,} assets x {DAYS:,} days"
        figures.append(Figure(f"{largest}: the longest tick of the reconciler", longest, "s", "<= 60", load))
        for sensor in sensors:
            figures.append(Figure(f"{largest}: {sensor.name}, nothing new", look(sensor), "s", "<= 1", load))
        day = str(synthetic.FIRST_DAY + timedelta(days=DAYS_MADE))
        for key in keys[: synthetic.LAYER]:
            tags = {"dagster/data_version": day}
            store(instance, [dg.AssetMaterialization(key.path, partition=day, tags=tags)])
        for sensor in sensors:
            figures.append(Figure(f"{largest}: {sensor.name}, one new day", look(sensor), "s", "<= 10", load))
    return figures


def seconds_of_looks(home: Path, assets: int, of_size: Mapping[str, str]) -> tuple[float, float]:
    """With days of every asset made: of a daemon's looks with nothing to do the median, and the median of those that
    looked at all conditions; of the sensor that takes longest, the others at work beside it.
    """
    with dg.DagsterInstance.from_config(str(home)) as instance:
        make_days(instance, assets)
        # As under `make dev` and in the chart, one process serves the code location for as long as the daemon runs.
        log, socket = (home / "daemon.log").open("wb"), home / "code.sock"
        options: dict[str, Any] = {"cwd": ROOT, "env": os.environ | of_size, "stdout": log, "stderr": log}
        server = [BIN / "dagster", "code-server", "start", "-m", "tests.synthetic", "--socket", str(socket)]
        programs = [subprocess.Popen(server, start_new_session=True, **options)]
        while not socket.exists():
            time.sleep(0.1)
        daemon = [BIN / "dagster-daemon", "run", "--grpc-socket", str(socket)]
        programs.append(subprocess.Popen(daemon, start_new_session=True, **options))
        try:
            deadline = time.monotonic() + 900
            while time.monotonic() < deadline:
                time.sleep(2)
                looks = [minutes_of(instance, state) for state in instance.all_instigator_state()]
                if looks and all(len(minutes) >= MINUTES for minutes in looks):
                    if runs := instance.get_runs_count():
                        sys.exit(f"{runs} runs were asked for, with nothing to do")
                    taken = [list(minutes.values()) for minutes in looks]
                    return (
                        max(statistics.median([s for of_minute in sensor for s in of_minute]) for sensor in taken),
                        max(statistics.median([max(of_minute) for of_minute in sensor]) for sensor in taken),
                    )
            sys.exit(f"{assets} assets: too few looks in 900 s\n{(home / 'daemon.log').read_text()[-4000:]}")
        finally:
            for program in reversed(programs):
                os.killpg(program.pid, signal.SIGTERM)
                program.wait(60)
            log.close()


def minutes_of(instance: dg.DagsterInstance, state: Any) -> dict[int, list[float]]:
    """The seconds of a sensor's looks by the minute in which they began; not the first minute, nor the present one."""
    minutes: dict[int, list[float]] = defaultdict(list)
    for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=200):
        if tick.end_timestamp:
            minutes[int(tick.timestamp // 60)].append(tick.end_timestamp - tick.timestamp)
    return {minute: seconds for minute, seconds in minutes.items() if min(minutes) < minute < time.time() // 60}


def make_days(instance: dg.DagsterInstance, assets: int) -> None:
    """Record the first days of every asset as made, layer after layer, as runs would have."""
    days = synthetic.synthetic(1, DAYS_MADE).resolve_asset_graph()
    ((key,),) = [days.get_all_asset_keys()]
    partitions = days.get(key).partitions_def
    for number in range(assets):
        events = [
            dg.AssetMaterialization(
                synthetic.name_of(number).split("/"), partition=day, tags={"dagster/data_version": day}
            )
            for day in (partitions.get_partition_keys() if partitions else [])
        ]
        store(instance, events)
        seen = instance.get_materialized_partitions(dg.AssetKey(synthetic.name_of(number).split("/")))
        if len(seen) != DAYS_MADE:
            sys.exit(f"{synthetic.name_of(number)}: {len(seen)} of {DAYS_MADE} days are there")


def store(instance: dg.DagsterInstance, events: list[dg.AssetMaterialization]) -> None:
    """As a step's events are stored: in one batch."""
    now = time.time()
    instance.event_log_storage.store_event_batch(
        [
            dg.EventLogEntry(
                error_info=None,
                level=20,
                user_message="",
                run_id="",
                timestamp=now,
                dagster_event=DagsterEvent(
                    DagsterEventType.ASSET_MATERIALIZATION.value,
                    "bench",
                    event_specific_data=StepMaterializationData(event),
                ),
            )
            for event in events
        ]
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        report("size", size(Path(folder)))
