"""Steps with pods of their own, under the executor as it is, on a cluster that is told what becomes of each pod."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.execution.plan.objects import StepSuccessData
from dagster_k8s.client import DagsterK8sUnrecoverableAPIError
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from kubernetes.client import V1Container, V1Pod, V1PodSpec, V1ResourceRequirements
from kubernetes.client.rest import ApiException

from tests.tilth.execution import pod_steps
from tilth._dagster.delegating_executor import Attempt
from tilth._dagster.executor import Run, Step
from tilth._dagster.kubernetes import PodState, StepPods, merged_resources
from tilth._dagster.pod_status import Ending, memory_limit
from tilth.execution import steps
from tilth.execution.compute import Request, step_config
from tilth.settings import Deployment

LOST, DEAD, OUT_OF_MEMORY = Ending("lost", "its pod was deleted"), Ending("ended", "it died"), Ending("memory", "")
POOLS = {
    "general": {"default": True, "selector": {"pool": "general"}},
    "spot": {"spot": True, "selector": {"pool": "spot"}},
}


class Pods:
    """In place of `StepPods`. A pod ends as it is told, or else with success."""

    def __init__(self, endings: Mapping[str, list[Ending]]) -> None:
        self._endings = {key: list(found) for key, found in endings.items()}
        self._now: dict[str, Ending | None] = {}
        self.memory: dict[str, list[str]] = defaultdict(list)

    def launch(self, attempt: Attempt, config: Mapping[str, Any]) -> None:
        key = attempt.step.key
        if key == "refused":
            answer = ApiException(403, "Forbidden")
            answer.body = json.dumps({"message": "jobs.batch is forbidden: exceeded quota"})
            raise DagsterK8sUnrecoverableAPIError(
                "Unexpected error", k8s_api_exception=answer, original_exc_info=(ApiException, answer, None)
            )
        self.memory[key].append(config["container_config"]["resources"]["limits"]["memory"])
        self._now[key] = self._endings[key].pop(0) if self._endings.get(key) else None
        if self._now[key] is None:
            dg.DagsterEvent.step_success_event(attempt.context.get_step_context(key), StepSuccessData(1.0))

    def state(self, attempt: Attempt) -> PodState:
        key = attempt.step.key
        # As Kubernetes writes it.
        limits = {"memory": {"1.3Gi": "1395864371200m"}.get(self.memory[key][-1], self.memory[key][-1])}
        step = V1Container(name="dagster", resources=V1ResourceRequirements(limits=limits))
        return PodState(self._now[key], memory_limit=memory_limit(V1Pod(spec=V1PodSpec(containers=[step]))))

    def delete(self, attempt: Attempt) -> None:
        assert attempt.step.key in self._now, "never had a pod"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "HEALTH_SECONDS", 0)
    monkeypatch.setattr(steps, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("TILTH_NODE_POOLS", json.dumps(POOLS))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


def executed(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance, job: Any, pods: Pods, **tags: str
) -> dg.JobExecutionResult:
    monkeypatch.setattr(steps._Steps, "_pods", lambda *_: pods)
    return dg.execute_job(dg.reconstructable(job), instance=instance, tags=tags, raise_on_error=False)


def said(result: dg.JobExecutionResult, event_type: dg.DagsterEventType) -> dict[str, list[str]]:
    """By step, what its failures or retries say."""
    found = defaultdict(list)
    for event in result.filter_events(lambda event: event.event_type is event_type):
        error = getattr(event.event_specific_data, "error", None)
        found[event.step_key or ""].append(error.message.strip() if error else "")
    return found


def test_each_step_ends_as_its_own_pods_do(monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> None:
    pods = Pods(
        {
            "lost_then_dead": [LOST, OUT_OF_MEMORY, DEAD],
            "dead_twice": [DEAD, DEAD],
            "of_an_odd_size": [OUT_OF_MEMORY],
            "on_spot": [LOST, LOST],
            "on_spot_alone": [LOST, LOST],
        }
    )
    result = executed(monkeypatch, instance, pod_steps.unpartitioned, pods)
    failed, again = (
        said(result, kind) for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    )

    # What cannot be started fails alone, and says why.
    assert set(failed) == {"refused", "dead_twice"}
    assert failed["refused"] == ["refused could not be started: jobs.batch is forbidden: exceeded quota"]
    # Pods that were lost or too small are no failures of the asset.
    assert len(again["lost_then_dead"]) == 3
    assert len(again["dead_twice"]) == 1
    # Of a size that Kubernetes writes in thousandths.
    assert pods.memory["of_an_odd_size"] == ["1.3Gi", "2662Mi"]
    # It moves only where its pool may change.
    assert again["on_spot"][1] == "on_spot: its pod was deleted. It begins again, on nodes that stay."
    assert again["on_spot_alone"][1] == "on_spot_alone: its pod was deleted. It begins again."


def test_a_step_of_a_partition_without_a_size_fails_alone_and_says_so(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    pods = Pods({})
    result = executed(monkeypatch, instance, pod_steps.sized_and_not, pods, **{"dagster/partition": "small"})
    failed = said(result, dg.DagsterEventType.STEP_FAILURE)
    assert failed == {
        "of_no_size": [
            "of_no_size small could not be started: ValueError: compute(memory=...): the table has no size for small, "
            'nor a "default".'
        ]
    }
    assert pods.memory == {"sized": ["2Gi"]}


def test_what_was_needed_is_kept_for_steps_that_ask_for_as_much(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    def given(partition: str, *endings: Ending) -> list[str]:
        pods = Pods({"sized": list(endings)})
        tags = {"dagster/partition": partition}
        assert executed(monkeypatch, instance, pod_steps.sized_alone, pods, **tags).success
        return pods.memory["sized"]

    assert given("small", OUT_OF_MEMORY, OUT_OF_MEMORY) == ["2Gi", "4Gi", "8Gi"]
    assert given("small") == ["8Gi"]
    assert given("large") == ["48Gi"]
    monkeypatch.setenv("TILTH_MEMORY_CEILING", "3Gi")
    assert given("small") == ["3Gi"]
    monkeypatch.setenv("TILTH_MEMORY_CEILING", "1Gi")
    assert given("small") == ["2Gi"]


def learnt(instance: dg.DagsterInstance, location: str, asked: str | None, needed: str) -> None:
    """A run of the code location in which `step` asked for so much memory and needed more."""
    found = steps._Steps(Deployment())
    found._asked["step"], found._given["step"] = Request(cpu=1, memory=asked), Request(cpu=1, memory=needed)
    found.succeeded(step_of(instance, location))


def step_of(instance: dg.DagsterInstance, location: str) -> Step:
    tags = {".dagster/repository": f"__repository__@{location}"}
    return Step("step", {}, [], Run(instance, "run", tags, None, cast(dg.DagsterLogManager, None)))


@pytest.mark.parametrize("asked", ["3Gi", None])
def test_what_one_run_learns_another_at_the_same_time_does_not_undo(
    instance: dg.DagsterInstance, asked: str | None
) -> None:
    for needed in ("6Gi", "12Gi", "24Gi", "12Gi", "6Gi"):
        learnt(instance, "here", asked, needed)
    assert steps._needed(step_of(instance, "here"), asked) == "24Gi"


def test_what_a_step_needed_is_of_its_code_location(instance: dg.DagsterInstance) -> None:
    learnt(instance, "here", "2Gi", "8Gi")
    assert steps._needed(step_of(instance, "elsewhere"), "2Gi") is None


RUN = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}, "claims": [{"name": "gpu"}]}


@pytest.mark.parametrize(
    ("request_", "requests", "limits"),
    [
        (Request(cpu=8), {"cpu": "8000m", "memory": "2Gi"}, {"cpu": "8", "memory": "2Gi"}),
        (Request(memory="64Gi"), {"cpu": "1", "memory": "64Gi"}, {"memory": "64Gi"}),
        (
            Request(gpu=1),
            {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"},
            {"memory": "2Gi", "nvidia.com/gpu": "1"},
        ),
        (Request(image="app:gpu"), RUN["requests"], RUN["limits"]),
    ],
)
def test_what_is_not_asked_for_is_that_of_the_deployments_runs(
    request_: Request, requests: dict[str, str], limits: dict[str, str]
) -> None:
    pods = StepPods.__new__(StepPods)  # it asks for a cluster
    pods._configs = {"step": UserDefinedDagsterK8sConfig.from_dict(step_config(request_, {}))}
    launcher: Any = launcher_with(resources=RUN, job_namespace="here")
    context: Any = SimpleNamespace(
        instance=SimpleNamespace(run_launcher=launcher),
        dagster_run=SimpleNamespace(job_code_origin=None),
        execute_step_args=SimpleNamespace(step_keys_to_execute=["step"]),
    )

    found = pods._get_container_context(context).run_k8s_config.container_config

    assert found["resources"] == {"requests": requests, "limits": limits, "claims": RUN["claims"]}
    assert found.get("image") == request_.image


def test_without_any_sizes_there_are_none() -> None:
    assert merged_resources({}, {}) == {}


def launcher_with(**settings: Any) -> Any:
    """A run launcher with these settings."""
    return type("Launcher", (), {"__getattr__": lambda _, name: settings.get(name)})()
