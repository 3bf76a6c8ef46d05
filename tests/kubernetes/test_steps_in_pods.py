"""Steps in pods of their own: more memory, lost nodes, GPUs and what cannot be, each on the cluster itself."""

import json
from typing import Any

import pytest

from tests.kubernetes.cluster import Platform, until

GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def launched(platform: Platform) -> dict[str, str]:
    """All of them at once, by what they are: most of a run is waiting."""
    of_a_range = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    alone = ["too_big", "on_gpu_that_no_node_has", "hungry", "late", "without_image", "insatiable"]
    runs = {asset: platform.launch(asset) for asset in alone}
    runs["hungry_workers"] = platform.launch("hungry_workers", tags=of_a_range)
    return runs | {f"on_gpu {key}": platform.launch("on_gpu", partition=key) for key in "ab" if gpus(platform)}


def test_a_step_that_needs_twice_its_memory_succeeds_on_its_second_attempt(
    platform: Platform, launched: dict[str, str]
) -> None:
    run = launched["hungry"]
    assert platform.ended(run) == "SUCCESS"
    assert platform.said(run, "STEP_UP_FOR_RETRY") == [
        "hungry needed more than 512Mi of memory. It begins again with 1Gi."
    ]
    given = [message for message in platform.said(run, "ENGINE_EVENT") if " is given " in message]
    assert given == ["hungry is given 512Mi memory.", "hungry is given 1Gi memory."]
    assert len(platform.materializations("hungry")) == 1


def test_the_next_run_begins_with_what_was_needed_and_says_what_to_ask_for(
    platform: Platform, launched: dict[str, str]
) -> None:
    platform.ended(launched["hungry"])
    run = platform.launch("hungry")
    assert platform.ended(run) == "SUCCESS"
    assert platform.said(run, "STEP_UP_FOR_RETRY") == []
    assert any('op_tags=compute(memory="1Gi", ...)' in message for message in platform.said(run, "ENGINE_EVENT"))


def test_the_same_when_a_worker_of_the_step_took_it_and_what_was_made_stays(
    platform: Platform, launched: dict[str, str]
) -> None:
    run = launched["hungry_workers"]
    assert platform.ended(run) == "SUCCESS"
    assert platform.said(run, "STEP_UP_FOR_RETRY") == [
        "hungry_workers a to c needed more than 640Mi of memory. It begins again with 1280Mi."
    ]
    made = [(found["partition"], found["runId"]) for found in platform.materializations("hungry_workers")]
    assert sorted(made) == [("a", run), ("b", run), ("c", run)]


def test_there_is_a_ceiling_and_the_failure_names_it(platform: Platform, launched: dict[str, str]) -> None:
    run = launched["insatiable"]
    assert platform.ended(run) == "FAILURE"
    assert len(platform.said(run, "STEP_UP_FOR_RETRY")) == 2
    (why,) = platform.said(run, "STEP_FAILURE")
    assert why.startswith(
        "insatiable needed more than 2Gi of memory, and more is not given (TILTH_MEMORY_CEILING is 2Gi)"
    )


def test_a_step_that_is_late_is_ended_by_its_timeout(platform: Platform, launched: dict[str, str]) -> None:
    assert platform.ended(launched["late"]) == "FAILURE"
    (why,) = platform.said(launched["late"], "STEP_FAILURE")
    assert why.startswith("late ran longer than its timeout of 15s and was ended.")


def test_an_image_that_cannot_be_pulled_fails_at_once_with_its_message(
    platform: Platform, launched: dict[str, str]
) -> None:
    assert platform.ended(launched["without_image"]) == "FAILURE"
    (why,) = platform.said(launched["without_image"], "STEP_FAILURE")
    assert why.startswith("without_image: its image cannot be used. Failed to pull image"), why
    assert "nowhere.invalid" in why
    platform.leaves_no_pod(launched["without_image"])


def test_a_step_that_no_node_takes_fails_after_a_while_with_what_the_scheduler_says(
    platform: Platform, launched: dict[str, str]
) -> None:
    run = launched["too_big"]
    assert platform.ended(run) == "FAILURE"
    (why,) = platform.said(run, "STEP_FAILURE")
    assert why.startswith("too_big (900Gi memory) found no node within 45s: 0/")
    assert "Insufficient memory" in why
    assert any("too_big waits for a node: 0/" in message for message in platform.said(run, "ENGINE_EVENT"))
    platform.leaves_no_pod(run)


def test_a_step_on_spot_nodes_that_lost_its_pod_twice_moves_to_nodes_that_stay(platform: Platform) -> None:
    run = platform.launch("on_spot")
    attempts: dict[str, Any] = {}

    def next_attempt() -> Any:
        """Of another Job: of the same one Kubernetes makes another pod when it is deleted, which does not count."""
        running = [pod for pod in platform.pods(run) if pod["status"]["phase"] == "Running"]
        return next((pod for pod in running if pod["metadata"]["labels"]["job-name"] not in attempts), None)

    for attempt in range(3):
        pod = until(next_attempt, "the next attempt runs")
        attempts[pod["metadata"]["labels"]["job-name"]] = pod
        if attempt < 2:
            platform.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    assert platform.ended(run) == "SUCCESS"
    spot = platform.values["nodePools"]["spot"]["selector"]
    assert [pod["spec"].get("nodeSelector") for pod in attempts.values()] == [spot, spot, None]
    again = platform.said(run, "STEP_UP_FOR_RETRY")
    assert again == [
        "on_spot: its pod was deleted. It begins again.",
        "on_spot: its pod was deleted. It begins again, on nodes that stay.",
    ]
    assert len(platform.materializations("on_spot")) == 1


def test_whoever_launches_a_run_gives_it_a_size_and_no_rights(platform: Platform) -> None:
    def with_container(**config: Any) -> dict[str, str]:
        return {"dagster-k8s/config": json.dumps({"container_config": config})}

    refused = platform.launch("in_run_pod_0", tags=with_container(security_context={"privileged": True}))
    sized = platform.launch("in_run_pod_0", tags=with_container(resources={"requests": {"cpu": "150m"}}))
    assert platform.ended(refused) == "FAILURE"
    assert platform.pods(refused, "run_worker") == []
    assert platform.ended(sized) == "SUCCESS"
    (pod,) = platform.pods(sized, "run_worker")
    assert pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "150m"


def test_cancelling_ends_the_steps_pod(platform: Platform) -> None:
    run = platform.launch("slow_in_its_own_pod", partition="c")
    platform.running_pod(run)
    platform.cancel(run)
    assert platform.ended(run) == "CANCELED"
    platform.leaves_no_pod(run)
    assert run not in [found["runId"] for found in platform.materializations("slow_in_its_own_pod")]


def gpus(platform: Platform) -> int:
    nodes: list[Any] = platform.get("nodes")
    return sum(int(node["status"]["allocatable"].get(GPU, 0)) for node in nodes)


def test_a_step_with_a_gpu_runs_on_the_gpu_pool_alone_and_one_after_the_other_where_there_is_one(
    platform: Platform, launched: dict[str, str]
) -> None:
    if not gpus(platform):
        pytest.skip("no node of this cluster has a GPU to give")
    pods = []
    for run in (launched["on_gpu a"], launched["on_gpu b"]):
        assert platform.ended(run) == "SUCCESS"
        pods += platform.pods(run)
    assert len(pods) == 2
    selector = platform.values["nodePools"]["gpu"]["selector"]
    for pod in pods:
        assert pod["spec"]["nodeSelector"] == selector
        assert pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "1"
        (node,) = [found for found in platform.get("nodes") if found["metadata"]["name"] == pod["spec"]["nodeName"]]
        assert selector.items() <= node["metadata"]["labels"].items()
    if gpus(platform) == 1:
        first, second = sorted(
            pod["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"] for pod in pods
        )
        ended = min(pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] for pod in pods)
        assert first < ended <= second


def test_where_no_node_has_that_gpu_the_step_waits_and_says_so(platform: Platform, launched: dict[str, str]) -> None:
    run = launched["on_gpu_that_no_node_has"]
    assert platform.ended(run) == "FAILURE"
    said = [message for message in platform.said(run, "ENGINE_EVENT") if "waits for a node" in message]
    assert said[0].startswith("on_gpu_that_no_node_has waits for a node: 0/")
    (why,) = platform.said(run, "STEP_FAILURE")
    assert why.startswith("on_gpu_that_no_node_has (1 GPU h100) found no node within 45s: 0/")
    (pod,) = [pod for pod in platform.seen.values() if is_of(pod, run) and is_of(pod, "step_worker")]
    assert pod["spec"]["nodeSelector"] == platform.values["nodePools"]["gpu-elsewhere"]["selector"]
    assert "nodeName" not in pod["spec"]


def is_of(pod: Any, label: str) -> bool:
    return label in pod["metadata"]["labels"].values()
