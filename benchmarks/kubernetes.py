"""Our executor on Kubernetes beside Dagster's, from nothing to a first materialization, and what it all takes.

On the cluster that KUBECONFIG names, with the images of tests/kubernetes (TILTH_IMAGE, TILTH_POSTGRES_IMAGE), in a
namespace that is deleted in the end.
"""

import json
import os
import statistics
import sys
import time

from benchmarks.report import Figure, load_average, report
from tests.kubernetes.cluster import Platform, namespace, until
from tilth._dagster.delegating_executor import EVENTS_READ_AGAIN

ROUNDS = 3
IDLE_SECONDS = 30
SECONDS = """query($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
    ... on MaterializationEvent { metadataEntries { ... on FloatMetadataEntry { floatValue } } } } } } }"""
# The image's own entry point, and so Dagster's command as it is.
STOCK = {"container_config": {"command": ["tini", "--"]}}


def succeeded(platform: Platform, run: str) -> None:
    if platform.ended(run, 900) != "SUCCESS":
        sys.exit(f"run {run} failed: {platform.said(run, 'STEP_FAILURE')}")


def fan(platform: Platform, job: str, location: str) -> tuple[float, int]:
    """Seconds from launch to end of a run of 20 steps in its pod and 2 in their own, and how many pods it took."""
    began = time.monotonic()
    run = platform.launch(job=job, location=location)
    succeeded(platform, run)
    took = time.monotonic() - began
    return took, len(platform.pods(run)) + len(platform.pods(run, "run_worker"))


def first_step(platform: Platform, location: str, asset: str, **tags: str) -> float:
    """Seconds from the start of the run's container to the first line of its first step, which says them."""
    run = platform.launch(asset, location=location, tags=tags)
    succeeded(platform, run)
    events = platform.graphql(SECONDS, run=run)["logsForRun"]["events"]
    return next(entry["floatValue"] for event in events for entry in event.get("metadataEntries", []))


def mebibytes(platform: Platform, *deployments: str) -> float:
    """What these pods hold, less what the kernel would give back at once: the working set, as the kubelet counts it."""
    script = (
        "cd /sys/fs/cgroup; [ ! -d memory ] || cd memory; cat memory.usage_in_bytes memory.current 2>/dev/null;"
        " grep -E '^(total_)?inactive_file ' memory.stat | tail -n 1 | cut -d ' ' -f 2"
    )
    total = 0
    for deployment in deployments:
        used, inactive = platform.kubectl("exec", f"deployment/tilth-{deployment}", "--", "sh", "-c", script).split()
        total += int(used) - int(inactive)
    return total / 2**20


def idle_and_first_materialization() -> tuple[float, float, float]:
    """Of a release with one location: seconds to the first materialization by its sensor, and what it holds in MiB; the
    image's size over its base in MB.
    """
    with namespace(["flights"]) as platform:
        began = time.monotonic()
        platform.install()
        platform.in_location("flights", "python", "-m", "assets.flights.replay", "--day", "2013-01-01")
        until(lambda: platform.materializations("raw/flights"), "raw/flights is materialized")
        first = time.monotonic() - began
        time.sleep(IDLE_SECONDS)
        held = mebibytes(platform, "webserver", "daemon", "location-flights")
        size = platform.in_location("flights", "du", "--summarize", "--block-size=1000000", "--total", "/opt")
        return first, held, float(size.split()[-2])


def main() -> None:
    if not os.environ.get("KUBECONFIG"):
        sys.exit("KUBECONFIG names no cluster: not measured.")
    load = load_average()
    first, held, size = idle_and_first_materialization()
    ours: list[tuple[float, int]] = []
    stock: list[tuple[float, int]] = []
    started: list[float] = []
    bare: list[float] = []
    with namespace(["trial", "stock", "bare"]) as platform:
        # Without it Dagster's own executor now and then misses that a step has ended (docs/upgrading.md).
        platform.install(
            env={"DAGSTER_EXECUTOR_POP_EVENTS_OFFSET": str(EVENTS_READ_AGAIN)},
            runLauncher={"tagsMaySet": {"container_config": {"command": True}}},
        )
        for _ in range(ROUNDS):
            ours.append(fan(platform, "fan", "trial"))
            stock.append(fan(platform, "with_stock_executor", "stock"))
            started.append(first_step(platform, "trial", "nothing_in_run_pod"))
            bare.append(first_step(platform, "bare", "nothing", **{"dagster-k8s/config": json.dumps(STOCK)}))
            print(f"  ours {ours[-1]}, stock {stock[-1]}, first step {started[-1]:.1f} s, bare {bare[-1]:.1f} s")
    seconds, stock_seconds = (statistics.median(took for took, _ in side) for side in (ours, stock))
    print(
        f"  20 steps in the run's pod, 2 in their own: {seconds:.1f} s; "
        f"Dagster's executor {stock_seconds:.1f} s, {stock[0][1]} pods"
    )
    begun = statistics.median(started) / statistics.median(bare)
    fanned = "20 steps in the run's pod, 2 in their own / Dagster's executor"
    report(
        "kubernetes",
        [
            Figure(fanned, seconds / stock_seconds, "x", "<= 0.333", load),
            Figure("their pods", max(pods for _, pods in ours), "", "<= 3", load),
            Figure("install → first materialization", first, "s", "<= 180", load),
            Figure("run pod → first step / bare Dagster", begun, "x", "<= 1.5", load),
            Figure("image over its base", size, "MB", "<= 1000", load),
            Figure("idle: webserver, daemon, one location", held / 1024, "GiB", "<= 1.2", load),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
