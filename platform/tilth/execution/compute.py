"""What a step needs of a machine, said in one line on its asset: `@dg.asset(op_tags=compute(cpu=4, memory="64Gi"))`.

On Kubernetes a step that asks gets a pod of its own with that much: by tilth/execution/steps.py, and by Dagster's own
`k8s_job_executor`, which reads the same tags. On one machine the request is shown beside what the step used, and a run
warns of what the machine does not have.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tilth.execution import timeouts
from tilth.settings import Deployment, NodePool

TAG = "tilth/compute"
GPU_RESOURCE = "nvidia.com/gpu"
GPU_TYPES = frozenset({"t4", "v100", "a10", "a10g", "a100", "l4", "l40s", "h100", "h200", "b200"})
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZES = ("cpu", "memory", "disk")
_OF_CHART = "(TILTH_NODE_POOLS, which the chart makes of nodePools)"

Of = TypeVar("Of", float, str)
PerPartition = Of | Mapping[str, Of]
"""A size, or a table of it by partition, whose "default" is for the keys that it does not name."""


@dataclass(frozen=True)
class Request:
    """What a step asks for; memory and disk as Kubernetes quantities. What is None is not asked for."""

    cpu: float | None = None
    memory: str | None = None
    gpu: int | None = None
    gpu_type: str | None = None
    disk: str | None = None
    spot: bool = False
    timeout: str | None = None
    image: str | None = None
    pool: str | None = None

    def __str__(self) -> str:
        gpu = self.gpu and f"{self.gpu} GPU {self.gpu_type or ''}".strip()
        said = [
            self.cpu and f"{self.cpu:g} CPU", self.memory and f"{self.memory} memory", gpu,
            self.disk and f"{self.disk} disk", self.pool and f"pool {self.pool}", self.spot and "spot",
        ]  # fmt: skip
        return ", ".join(part for part in said if part) or "a pod of its own"


def compute(
    *,
    cpu: PerPartition[float] | None = None,
    memory: PerPartition[str] | None = None,
    gpu: int | None = None,
    gpu_type: str | None = None,
    disk: PerPartition[str] | None = None,
    spot: bool = False,
    timeout: str | None = None,
    image: str | None = None,
    pool: str | None = None,
) -> dict[str, str]:
    """The op tags of an asset whose step needs this much; beside other tags `op_tags={**compute(...), ...}`.

    Args:
        cpu: cores; parts of one are written 0.5.
        memory: a quantity as Kubernetes writes it, "512Mi" or "64Gi". The step is never given less, and is ended if it
            takes more; tilth/execution/steps.py then tries it again with twice as much.
        gpu: how many; of any type unless `gpu_type` names one: "l4", "a100".
        disk: of local scratch space, as a quantity.
        spot: on nodes that may be taken away, where the deployment has such; lost twice, it moves to others if any fit.
        timeout: how long the step may run, as `timeout("2h")` says it.
        image: instead of the code location's.
        pool: the name of a node pool of the deployment (TILTH_NODE_POOLS), where the rest does not say which.

    A pod has of `cpu`, `memory` and `disk`, where they are left out, what the deployment gives a run. Each may be a
    table by partition, `{"2013-12": "8Gi", "default": "2Gi"}`: a step over several gets the largest. Dagster's own
    executor, which does not know a step's partitions, gives the largest of the table.

    Raises:
        ValueError: a size is none, or not above zero; the type of GPU or the pool is unknown; the deployment has pools
            with GPUs, and none that fits. It repeats the request.
    """
    given = {"cpu": cpu, "memory": memory, "gpu": gpu, "gpu_type": gpu_type, "disk": disk, "spot": spot}
    given |= {"timeout": timeout, "image": image, "pool": pool}
    asked = {name: value for name, value in given.items() if value is not None and value is not False}
    sizes, pools = [name for name in _SIZES if name in asked], Deployment().node_pools
    try:
        for name in sizes:
            _check_sizes(name, asked[name])
        request = Request(**{name: _largest(name, value, ()) for name, value in asked.items()})
        _check(request, pools)
    except (TypeError, ValueError) as problem:
        written = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        raise ValueError(f"compute({written}): {problem}") from None
    up_to = {name: "per partition, up to " for name in sizes if isinstance(asked[name], Mapping)}
    return {
        TAG: json.dumps(asked),
        "dagster-k8s/config": json.dumps(step_config(request, pools)),
        **{name: f"{up_to.get(name, '')}{getattr(request, name)}" for name in sizes},
        **({"gpu": f"nvidia-{gpu_type}" if gpu_type else "nvidia"} if gpu else {}),
        **({"spot": "true"} if spot else {}),
        **(timeouts.timeout(timeout) if timeout else {}),
    }


def request_of(tags: Mapping[str, str], partitions: Sequence[str] = ()) -> Request | None:
    """What the op tags of a step over these partitions ask for, its `timeout(...)` included; None if nothing.

    Of a table the largest size; without partitions, of all that it names.

    Raises:
        ValueError: a table has no size for one of them.
    """
    if TAG not in tags:
        return None
    asked = json.loads(tags[TAG])
    request = Request(**{name: _largest(name, value, partitions) for name, value in asked.items()})
    return replace(request, timeout=request.timeout or tags.get(timeouts.TAG))


def requested(tags: Mapping[str, str]) -> dict[str, str]:
    """`step/requested`, what the op tags ask for, to stand in metadata beside what the step used; empty if nothing."""
    if (request := request_of(tags)) is None:
        return {}
    by_partition = any(isinstance(size, dict) for size in json.loads(tags[TAG]).values())
    return {"step/requested": f"{'up to ' * by_partition}{request}"}


def step_config(request: Request, pools: Mapping[str, NodePool], *, on_demand: bool = False) -> dict[str, Any]:
    """The `dagster-k8s/config` of a pod for this request; `on_demand` keeps it off spot nodes where others are.

    It replaces, not adds to, what the pods of the code location have: a pod with a GPU that kept the selector of
    another pool would never find a node.
    """
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    if request.cpu is not None:
        requests["cpu"] = f"{round(request.cpu * 1000)}m"
        # Without a limit the step would take each core of its node for its own, and start as many processes.
        limits["cpu"] = str(math.ceil(request.cpu))
    for name, size in (("memory", request.memory), ("ephemeral-storage", request.disk)):
        if size is not None:
            requests[name] = limits[name] = size
    if request.gpu:
        requests[GPU_RESOURCE] = limits[GPU_RESOURCE] = str(request.gpu)
    container: dict[str, Any] = {"resources": {"requests": requests, "limits": limits}} if requests else {}
    if request.image:
        container["image"] = request.image
    spec: dict[str, Any] = {}
    name = pool_for(request, pools, on_demand=on_demand)
    if name is not None:
        spec = {"node_selector": pools[name].selector, "tolerations": pools[name].tolerations}
    elif request.gpu:
        spec = {"node_selector": {}, "tolerations": [{"key": GPU_RESOURCE, "operator": "Exists"}]}
    if request.timeout:
        spec["active_deadline_seconds"] = timeouts.seconds(request.timeout)
    return {"container_config": container, "pod_spec_config": spec, "merge_behavior": "SHALLOW"}


def pool_for(request: Request, pools: Mapping[str, NodePool], *, on_demand: bool = False) -> str | None:
    """The pool whose nodes fit the request; None is the deployment's default. Whether nodes may be taken away yields to
    what they have: where only spot nodes have the GPU, they are taken.
    """
    if request.pool is not None and request.pool in pools:
        return request.pool
    spot = request.spot and not on_demand
    if request.gpu:
        fitting = [name for name, gpu_type in _gpus(pools).items() if request.gpu_type in (None, gpu_type)]
        return min(fitting, key=lambda name: pools[name].spot != spot, default=None)
    return next((name for name, pool in pools.items() if spot and pool.spot and not pool.gpu_type), None)


def leaves_spot(request: Request, pools: Mapping[str, NodePool]) -> bool:
    """Whether `on_demand` moves the step from its nodes to a pool that stays."""
    default = next((name for name, pool in pools.items() if pool.default), None)
    taken, other = (pool_for(request, pools, on_demand=on_demand) or default for on_demand in (False, True))
    return other is not None and other != taken and not pools[other].spot


def quantity(text: str) -> int:
    """Bytes of a Kubernetes quantity such as "512Mi"; ValueError for other text, and for zero."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", text) if isinstance(text, str) else None
    if found is None or found[2] not in _BYTES or float(found[1]) <= 0:
        raise ValueError(f'{text!r} is no amount of bytes. Write a number above zero and its unit: "512Mi", "64Gi".')
    return int(float(found[1]) * _BYTES[found[2]])


def as_quantity(size_bytes: int) -> str:
    """The bytes as a Kubernetes quantity: "2Gi", or "1536Mi" where they are no whole Gi."""
    return f"{size_bytes >> 30}Gi" if size_bytes % 2**30 == 0 else f"{max(1, size_bytes >> 20)}Mi"


def _check(request: Request, pools: Mapping[str, NodePool]) -> None:
    if request.gpu is not None and (type(request.gpu) is not int or request.gpu < 1):
        raise ValueError(f"gpu={request.gpu!r}: write how many, a whole number above zero.")
    known = GPU_TYPES | {pool.gpu_type for pool in pools.values() if pool.gpu_type}
    if request.gpu_type is not None:
        if request.gpu is None:
            raise ValueError(f"gpu_type={request.gpu_type!r} without gpu=: write how many as well.")
        if request.gpu_type not in known:
            raise ValueError(f"gpu_type={request.gpu_type!r} is unknown; known are {', '.join(sorted(known))}.")
    if request.timeout is not None:
        timeouts.seconds(request.timeout)
    # One machine has no pools; what is asked for a cluster is checked on the cluster.
    if request.pool is not None and pools and request.pool not in pools:
        raise ValueError(
            f"pool={request.pool!r} is not among this deployment's node pools: {', '.join(sorted(pools))} {_OF_CHART}."
        )
    # Where no pool fits, a pod would have no selector, and take any GPU.
    gpus = _gpus(pools)
    there = ", ".join(f"{gpu_type} (pool {name})" for name, gpu_type in sorted(gpus.items())) or "none"
    fitting = {name for name, gpu_type in gpus.items() if request.gpu_type in (None, gpu_type)}
    if request.gpu and request.pool in pools and request.pool not in fitting:
        has = gpus.get(str(request.pool), "no GPU")
        raise ValueError(f"gpu={request.gpu}: pool {request.pool!r} has {has}; GPUs there are: {there} {_OF_CHART}.")
    if request.gpu_type is not None and gpus and not fitting:
        raise ValueError(f"gpu_type={request.gpu_type!r}: no node pool has it; there are {there} {_OF_CHART}.")


def _gpus(pools: Mapping[str, NodePool]) -> dict[str, str]:
    """By pool, the type of its GPUs."""
    return {name: pool.gpu_type for name, pool in pools.items() if pool.gpu_type}


def _check_sizes(name: str, given: Any) -> None:
    if given == {}:
        raise ValueError(f"{name}={{}} names no partition.")
    for size in given.values() if isinstance(given, Mapping) else [given]:
        if name != "cpu":
            quantity(size)
        elif isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < math.inf:
            raise ValueError(f"cpu={size!r}: write how many cores, a number above zero: 4 or 0.5.")


def _largest(name: str, given: Any, partitions: Sequence[str]) -> Any:
    """What is asked for, of a table of sizes the largest of these partitions."""
    if not isinstance(given, Mapping):
        return given
    for key in partitions:
        if key not in given and "default" not in given:
            raise ValueError(f'compute({name}=...): the table has no size for {key}, nor a "default".')
    sizes = [given.get(key, given.get("default")) for key in partitions] or [*given.values()]
    return max(sizes, key=None if name == "cpu" else quantity)
