"""Steps in pods of their own: Dagster's step Jobs, with what is asked for each attempt and what becomes of each pod.

What here is not Dagster's public API docs/upgrading.md names.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
from dagster._core.executor.step_delegating import StepHandlerContext
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.executor import K8sStepHandler
from dagster_k8s.job import UserDefinedDagsterK8sConfig

from tilth._dagster.delegating_executor import Attempt
from tilth._dagster.pod_status import Ending, ending_of, memory_limit, unschedulable

_LISTED_SECONDS = 1.0
_DELETED_SECONDS = 60.0


@dataclass(frozen=True)
class PodState:
    """What has become of an attempt's pod: how it ended, what it waits for, its limit of memory in bytes."""

    ending: Ending | None
    waits_for: str = ""
    memory_limit: int | None = None


class StepPods(K8sStepHandler):
    """The Jobs of one run's steps. Each belongs to the run's pod: with that deleted, Kubernetes deletes them."""

    def __init__(self, instance: dg.DagsterInstance, unschedulable_seconds: float) -> None:
        launcher: Any = instance.run_launcher
        super().__init__(
            image=None,
            container_context=K8sContainerContext(),
            load_incluster_config=launcher.load_incluster_config,
            kubeconfig_file=launcher.kubeconfig_file,
            enable_owner_references=True,
        )
        self._namespace = str(launcher.job_namespace)
        self._cluster: Any = self._api_client
        self._unschedulable_seconds = unschedulable_seconds
        self._configs: dict[str, UserDefinedDagsterK8sConfig] = {}
        self._launched: dict[str, float] = {}
        self._first: dict[str, str] = {}
        self._listed: tuple[float, Mapping[str, Sequence[Any]]] = (0.0, {})

    def launch(self, attempt: Attempt, config: Mapping[str, Any]) -> None:
        """Create the Job of the attempt, by a `dagster-k8s/config`."""
        key = attempt.step.key
        # Not by `-m`: the step's own workers would import the module once more, each.
        watched = ["tini", "--", "python", "-c", "from tilth._dagster.step_process import main; main()"]
        watched.append(attempt.context.execute_step_args.run_id)
        self._configs[key] = UserDefinedDagsterK8sConfig.from_dict(
            {
                **config,
                "container_config": {**config["container_config"], "command": watched},
                # A step asks nothing of the cluster; the executor did.
                "pod_spec_config": {**config["pod_spec_config"], "automount_service_account_token": False},
                "job_spec_config": {"backoff_limit": 0},
            }
        )
        self._launched[key] = time.monotonic()
        self._first.pop(key, None)
        list(self.launch_step(attempt.context))

    def state(self, attempt: Attempt) -> PodState:
        """What has become of the attempt's pod."""
        key, context = attempt.step.key, attempt.context
        pod = self._pod(key, context)
        if pod is None and key in self._first:
            return PodState(Ending("lost", "its pod was deleted"))
        if pod is None and time.monotonic() - self._launched[key] > self._unschedulable_seconds:
            said = self._warnings("Job", self._get_k8s_step_job_name(context))
            return PodState(Ending("unschedulable", max(said, key=len, default="Kubernetes made no pod of its Job")))
        if pod is None:
            return PodState(None)
        found = ending_of(pod, self._unschedulable_seconds)
        if found is not None and found.how == "image":
            # The pod says only that it waits, and most of its events "Error: ImagePullBackOff"; the longest says why.
            found = replace(found, said=max([found.said, *self._warnings("Pod", pod.metadata.name)], key=len))
        return PodState(found, unschedulable(pod), memory_limit(pod))

    def delete(self, attempt: Attempt) -> None:
        """Delete the attempt's Job, with its pod."""
        list(self.terminate_step(attempt.context))

    def delete_steps_of(self, run_id: str) -> None:
        """Delete the Jobs of another run, and return when their pods are gone."""
        of_run = f"dagster/run-id={run_id},app.kubernetes.io/component=step_worker"
        jobs = self._cluster.batch_api.list_namespaced_job(self._namespace, label_selector=of_run).items
        for job in jobs:
            self._cluster.delete_job(job.metadata.name, self._namespace)
        until = time.monotonic() + _DELETED_SECONDS
        while jobs and self._list(run_id) and time.monotonic() < until:
            time.sleep(_LISTED_SECONDS)

    def _pod(self, key: str, context: StepHandlerContext) -> Any:
        """The pod of the step's present attempt, the first of its Job; None while there is none."""
        pods = self._pods(context.execute_step_args.run_id).get(self._get_k8s_step_job_name(context), [])
        if pods and key not in self._first:
            self._first[key] = min(pods, key=lambda pod: pod.metadata.creation_timestamp).metadata.uid
        return next((pod for pod in pods if pod.metadata.uid == self._first.get(key)), None)

    def _get_container_context(self, step_handler_context: StepHandlerContext) -> K8sContainerContext:
        # What the location's pods have, and this attempt's config instead of the tag's, which may be of another pool.
        launcher: Any = step_handler_context.instance.run_launcher
        own = K8sContainerContext.create_for_run(step_handler_context.dagster_run, launcher, include_run_tags=False)
        asked = self._configs[self._get_step_key(step_handler_context)]
        sizes = [dict(found.container_config.get("resources") or {}) for found in (own.run_k8s_config, asked)]
        container = {**asked.container_config, "resources": merged_resources(*sizes)}
        return own.merge(K8sContainerContext(run_k8s_config=asked._replace(container_config=container)))

    def _pods(self, run_id: str) -> Mapping[str, Sequence[Any]]:
        """By name of the Job, all pods of the run's steps: one question for all of them."""
        at, listed = self._listed
        if time.monotonic() - at > _LISTED_SECONDS:
            by_job = defaultdict(list)
            for pod in self._list(run_id):
                by_job[pod.metadata.labels["job-name"]].append(pod)
            listed = by_job
            self._listed = (time.monotonic(), listed)
        return listed

    def _list(self, run_id: str) -> Sequence[Any]:
        of_run = f"dagster/run-id={run_id},app.kubernetes.io/component=step_worker"
        return self._cluster.core_api.list_namespaced_pod(self._namespace, label_selector=of_run).items

    def _warnings(self, kind: str, name: str) -> list[str]:
        """What Kubernetes has warned of, in no order."""
        of_it = f"involvedObject.kind={kind},involvedObject.name={name}"
        events = self._cluster.core_api.list_namespaced_event(self._namespace, field_selector=of_it).items
        return [event.message for event in events if event.type == "Warning"]


def merged_resources(own: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The requests and limits that are asked for, and of what is not asked for, the own: without any memory a pod would
    be the first that is evicted.
    """
    merged = {kind: {**own.get(kind, {}), **asked.get(kind, {})} for kind in ("requests", "limits")}
    return {**own, **{kind: sizes for kind, sizes in merged.items() if sizes}}
