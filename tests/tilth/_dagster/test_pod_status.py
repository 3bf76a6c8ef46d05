"""What a pod's status says of its step, in statuses as clusters give them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from kubernetes.client import (
    V1Container,
    V1ContainerState,
    V1ContainerStateTerminated,
    V1ContainerStateWaiting,
    V1ContainerStatus,
    V1ObjectMeta,
    V1Pod,
    V1PodCondition,
    V1PodSpec,
    V1PodStatus,
    V1ResourceRequirements,
)

from tilth._dagster.pod_status import Ending, ending_of, memory_limit, unschedulable

PATIENCE = 60.0
Seen = Callable[[], V1Pod]


def pod(state: V1ContainerState | None = None, age: float = 10, deleted: bool = False, **status: Any) -> Seen:
    """A pod of that age, made when it is asked for: the tests may run long after they were collected."""
    return partial(_pod, state, age, deleted, **status)


def _pod(state: V1ContainerState | None, age: float, deleted: bool, **status: Any) -> V1Pod:
    now = datetime.now(UTC)
    container = V1ContainerStatus(image="i", image_id="", name="dagster", ready=False, restart_count=0, state=state)
    return V1Pod(
        metadata=V1ObjectMeta(
            name="step", creation_timestamp=now - timedelta(seconds=age), deletion_timestamp=now if deleted else None
        ),
        status=V1PodStatus(container_statuses=[container] if state else None, **status),
    )


def ended(code: int, reason: str) -> V1ContainerState:
    return V1ContainerState(terminated=V1ContainerStateTerminated(exit_code=code, reason=reason))


def waits(reason: str) -> V1ContainerState:
    return V1ContainerState(waiting=V1ContainerStateWaiting(reason=reason, message="because"))


NO_NODE = V1PodCondition(
    type="PodScheduled", status="False", reason="Unschedulable", message="0/3 nodes are available: 3 Insufficient cpu."
)


# By the kubelet, when its node restarts or shuts down.
REFUSED_OR_TAKEN = [
    "OutOfcpu",
    "OutOfmemory",
    "OutOfnvidia.com/gpu",
    "UnexpectedAdmissionError",
    "NodeAffinity",
    "NodeShutdown",
    "Terminated",
]


@pytest.mark.parametrize(
    ("seen", "how"),
    [
        (pod(ended(137, "OOMKilled"), phase="Failed"), "memory"),
        (pod(ended(137, "OOMKilled"), phase="Running"), "memory"),
        (pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."), "lost"),
        (pod(ended(137, "Error"), phase="Failed", reason="NodeShutdown"), "lost"),
        (pod(ended(143, "Error"), phase="Failed"), "lost"),
        (pod(phase="Running", deleted=True), "lost"),
        (pod(ended(137, "Error"), phase="Failed", reason="DeadlineExceeded"), "late"),
        (pod(waits("ImagePullBackOff"), phase="Pending"), "image"),
        (pod(waits("CreateContainerConfigError"), phase="Pending"), "image"),
        (pod(ended(1, "Error"), phase="Failed"), "ended"),
        (pod(ended(137, "Error"), phase="Failed"), "ended"),
        (pod(ended(0, "Completed"), phase="Succeeded"), "ended"),  # where the log has no end of its step
        *[(pod(phase="Failed", reason=reason), "lost") for reason in REFUSED_OR_TAKEN],
        (pod(phase="Failed", reason="AppArmor"), "ended"),
        (pod(phase="Pending", age=PATIENCE + 1, conditions=[NO_NODE]), "unschedulable"),
    ],
)
def test_it_ended(seen: Seen, how: str) -> None:
    found = ending_of(seen(), PATIENCE)
    assert found is not None
    assert found.how == how


@pytest.mark.parametrize(
    "seen",
    [
        pod(phase="Running"),
        pod(waits("ContainerCreating"), phase="Pending"),
        pod(waits("ErrImagePull"), phase="Pending"),  # once may be the network
        pod(phase="Pending", conditions=[NO_NODE]),
        pod(phase="Pending", age=PATIENCE + 1),  # its image is large
    ],
)
def test_it_may_still_do_its_work(seen: Seen) -> None:
    assert ending_of(seen(), PATIENCE) is None


def test_what_kubernetes_says_is_said() -> None:
    assert ending_of(pod(phase="Failed", reason="Evicted", message="The node was low.")(), PATIENCE) == Ending(
        "lost", "Evicted: The node was low."
    )
    assert unschedulable(pod(phase="Pending", conditions=[NO_NODE])()) == "0/3 nodes are available: 3 Insufficient cpu."
    assert unschedulable(pod(phase="Running")()) == ""


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        ("512Mi", 2**29),
        ("1395864371200m", 1395864371),  # what Kubernetes makes of "1.3Gi"
        ("2e9", 2 * 10**9),
        ("1E", 10**18),
        ("1Pi", 2**50),
        ("900000", 900_000),
        (None, None),
    ],
)
def test_a_limit_is_read_as_kubernetes_writes_it(limit: str | None, size: int | None) -> None:
    resources = V1ResourceRequirements(limits=None if limit is None else {"memory": limit, "cpu": "1500m"})
    spec = V1PodSpec(containers=[V1Container(name="dagster", resources=resources)])
    assert memory_limit(V1Pod(spec=spec)) == size
