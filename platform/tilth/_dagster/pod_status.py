"""Why a step's pod does not do its work, or was not made, read from what Kubernetes says of it."""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

# The image cannot be had, or the container not be made of it: waiting does not help.
_HOPELESS = {
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
}
# Beside these, all that begin with OutOf (OutOfcpu, OutOfnvidia.com/gpu): as the next, the node, when it restarts, has
# no longer what the scheduler gave away.
_LOST_REASONS = {
    "UnexpectedAdmissionError",
    "Evicted",
    "Preempting",
    "Shutdown",
    "NodeShutdown",
    "NodeLost",
    "NodeAffinity",
    "Terminated",
}
_SIGTERM, _SIGKILL = 143, 137


@dataclass(frozen=True)
class Ending:
    """How a pod ended, or why it never will begin.

    `memory`: it took more than it was given. `lost`: its node, or somebody, took it away. `image`: its container cannot
    be made. `late`: it ran longer than its timeout. `unschedulable`: no node took it. `ended`: any other way.
    """

    how: Literal["memory", "lost", "image", "late", "unschedulable", "ended"]
    said: str


def ending_of(pod: Any, unschedulable_seconds: float) -> Ending | None:
    """How the pod, as the API gives it, ended; None while it may still do its work.

    Args:
        unschedulable_seconds: how long it may wait for a node.
    """
    if pod.metadata.deletion_timestamp is not None:
        return Ending("lost", "its pod was deleted")
    status, name = pod.status, pod.metadata.name
    container = next(iter(status.container_statuses or []), None)
    ended = container.state.terminated if container else None
    if status.reason == "DeadlineExceeded":
        return Ending("late", status.message or "")
    if status.phase == "Failed" and status.reason:
        how = "lost" if status.reason in _LOST_REASONS or status.reason.startswith("OutOf") else "ended"
        return Ending(how, f"{status.reason}: {(status.message or '').strip()}")
    if ended is not None and ended.exit_code != 0:
        if ended.reason == "OOMKilled":
            return Ending("memory", "")
        if ended.exit_code == _SIGTERM:
            return Ending("lost", "its pod was told to stop")
        killed = " (SIGKILL)" if ended.exit_code == _SIGKILL else ""
        return Ending("ended", f"its pod {name} ended with exit code {ended.exit_code}{killed}; see the pod's log")
    if ended is not None:
        return Ending("ended", f"its pod {name} ended with exit code 0 before its step had ended; see the pod's log")
    waiting = container.state.waiting if container else None
    if waiting is not None and waiting.reason in _HOPELESS:
        return Ending("image", f"{waiting.reason}: {waiting.message or ''}")
    said = unschedulable(pod)
    if said and (datetime.now(UTC) - pod.metadata.creation_timestamp).total_seconds() > unschedulable_seconds:
        return Ending("unschedulable", said)
    return None


def unschedulable(pod: Any) -> str:
    """What the scheduler says of a pod that no node takes; empty if it says nothing."""
    conditions = pod.status.conditions or []
    found = (found.message for found in conditions if found.type == "PodScheduled" and found.status == "False")
    return next(found, "") or ""


def memory_limit(pod: Any) -> int | None:
    """How many bytes of memory the pod's step is given; None if there is no limit."""
    from kubernetes.utils import parse_quantity  # where there is a pod, it is imported

    resources = pod.spec.containers[0].resources
    limit = (resources.limits or {}).get("memory") if resources else None
    # In Kubernetes' own writing: of "1.3Gi" it makes "1395864371200m".
    return None if limit is None else int(parse_quantity(limit))


def refusal(problem: Exception) -> str:
    """What Kubernetes says, where it was that which refused; else the error."""
    answer: Any = getattr(problem, "k8s_api_exception", problem)
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        return json.loads(answer.body)["message"]
    return f"{type(answer).__name__}: {answer}"
