"""What a step needs of a machine, said in one line on its asset: `@dg.asset(op_tags=compute(cpu=4, memory="64Gi"))`.

On Kubernetes a step that asks gets a pod of its own with that much: by tilth/execution/steps.py, and by Dagster's own
`k8s_job_executor`, which reads the same tags. On one machine the request is shown beside what the step used, and a run
warns of what the machine does not have.
"""

import ast
import inspect
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tilth.execution import timeouts
from tilth.execution.sizes import decoded, encoded
from tilth.settings import Deployment, NodePool

TAG = "tilth/compute"
GPU_RESOURCE = "nvidia.com/gpu"
GPU_TYPES = frozenset({"t4", "v100", "a10", "a10g", "a100", "l4", "l40s", "h100", "h200", "b200"})
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

_OF_CHART = "(TILTH_NODE_POOLS, which the chart makes of nodePools)"

Of = TypeVar("Of", float, str)
# A size that depends on the partition: a table whose "default" is for keys it does not name, or a function of the key.
PerPartition = Mapping[str, Of] | Callable[[str], Of]


@dataclass(frozen=True)
class Request:
    """What a step asks for; memory and disk as Kubernetes quantities. What is None is not asked for."""

    cpu: Any = None
    memory: Any = None
    gpu: int | None = None
    gpu_type: str | None = None
    disk: Any = None
    spot: bool = False
    timeout: str | None = None
    image: str | None = None
    pool: str | None = None

    def of(self, partitions: Sequence[str]) -> "Request":
        """The request of a step over these partitions; of a size that depends on the partition, the largest.

        Raises:
            ValueError: a function or a table gives no size, or none that can be asked for, for one of them.
        """
        largest = {
            "cpu": _largest("cpu", self.cpu, partitions),
            "memory": _largest("memory", self.memory, partitions),
            "disk": _largest("disk", self.disk, partitions),
        }
        return replace(self, **largest)

    def __str__(self) -> str:
        sizes = {"CPU": self.cpu, "memory": self.memory, "disk": self.disk}
        said = [f"{_said(size)} {name}" for name, size in sizes.items() if size is not None]
        if self.gpu:
            said.insert(len(said) - bool(self.disk), f"{self.gpu} GPU" + f" {self.gpu_type}" * bool(self.gpu_type))
        said += [f"pool {self.pool}"] * bool(self.pool) + ["spot"] * self.spot
        return ", ".join(said) or "a pod of its own"


def compute(
    *,
    cpu: float | PerPartition[float] | None = None,
    memory: str | PerPartition[str] | None = None,
    gpu: int | None = None,
    gpu_type: str | None = None,
    disk: str | PerPartition[str] | None = None,
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

    A pod has of `cpu`, `memory` and `disk`, where they are left out, what the deployment gives a run.

    `cpu`, `memory` and `disk` may depend on the partition: a table `{"2013-12": "8Gi", "default": "2Gi"}`, or a
    function of the partition's key. A step over several gets the largest. Dagster's own executor, which knows tags
    only, gives the largest of a table, and nothing for a function.

    Raises:
        ValueError: a size is none, or not above zero; the type of GPU or the pool is unknown; the deployment has pools
            with GPUs, and none that fits. It names the asset.
    """
    request = Request(cpu, memory, gpu, gpu_type, disk, spot, timeout, image, pool)
    pools = Deployment().node_pools
    try:
        _check(request, pools)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"compute(...) of {_asker(inspect.currentframe())}: {problem}") from None
    fields = {name: encoded(value) for name, value in vars(request).items() if value not in (None, False)}
    config = step_config(_known(request), pools)
    shown = {"cpu": cpu, "memory": memory, "disk": disk}
    return {
        TAG: json.dumps(fields),
        "dagster-k8s/config": json.dumps(config),
        **{name: _said(value) for name, value in shown.items() if value is not None},
        **({"gpu": f"nvidia-{gpu_type}" if gpu_type else "nvidia"} if gpu else {}),
        **({"spot": "true"} if spot else {}),
        **(timeouts.timeout(timeout) if timeout else {}),
    }


def request_of(tags: Mapping[str, str]) -> Request | None:
    """What the op tags of a step ask for, its `timeout(...)` included; None if nothing.

    Raises:
        ValueError: a size is a function that this process did not define.
    """
    if TAG not in tags:
        return None
    request = Request(**{name: decoded(value) for name, value in json.loads(tags[TAG]).items()})
    return replace(request, timeout=request.timeout or tags.get(timeouts.TAG))


def requested(tags: Mapping[str, str]) -> dict[str, str]:
    """`step/requested`, what the op tags ask for, to stand in metadata beside what the step used; empty if nothing."""
    request = request_of(tags)
    return {} if request is None else {"step/requested": str(request)}


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


def shortages(request: Request) -> list[str]:
    """What of the request this machine does not have, a phrase each."""
    from joblib import cpu_count  # 0.2 s to import, which definitions need not pay

    has_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    short = []
    if request.cpu is not None and request.cpu > cpu_count():
        short.append(f"{request.cpu:g} CPU where there are {cpu_count()}")
    if request.memory is not None and quantity(request.memory) > has_bytes:
        short.append(f"{request.memory} memory where there are {has_bytes / 2**30:.1f}Gi")
    has_gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if request.gpu and request.gpu > has_gpus:
        short.append(f"{request.gpu} GPU where there are {has_gpus}")
    return short


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
    for name in ("cpu", "memory", "disk"):
        size = getattr(request, name)
        if isinstance(size, Mapping):
            if not size:
                raise ValueError(f"{name}={{}} names no partition.")
            for value in size.values():
                _check_size(name, value)
        elif size is not None and not callable(size):
            _check_size(name, size)
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


def _check_size(name: str, size: Any) -> None:
    if name != "cpu":
        try:
            quantity(size)
        except ValueError as problem:
            raise ValueError(f"{name}: {problem}") from None
    elif isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < math.inf:
        raise ValueError(f"cpu={size!r}: write how many cores, a number above zero: 4 or 0.5.")


def _largest(name: str, size: Any, partitions: Sequence[str]) -> Any:
    if isinstance(size, Mapping):
        missing = [key for key in partitions if key not in size and "default" not in size]
        if missing:
            raise ValueError(f'compute({name}=...): the table has no size for {missing[0]}, nor a "default".')
        sizes: list[Any] = [size.get(key, size.get("default")) for key in partitions] or list(size.values())
    elif callable(size):
        sizes = [size(key) for key in partitions or [""]]
        for key, value in zip(partitions or [""], sizes, strict=True):
            try:
                _check_size(name, value)
            except ValueError as problem:
                raise ValueError(f"compute({name}=...) gives for partition {key!r}: {problem}") from None
    else:
        return size
    return max(sizes) if name == "cpu" else max(sizes, key=quantity)


def _known(request: Request) -> Request:
    """What of the request is known before there is a partition: of a table the largest, of a function nothing."""
    unknown: dict[str, Any] = {name: None for name in ("cpu", "memory", "disk") if callable(getattr(request, name))}
    return replace(request, **unknown).of([])


def _said(size: Any) -> str:
    if isinstance(size, Mapping):
        return "per partition, up to " + _said(_largest("cpu" if _numbers(size) else "memory", size, []))
    return "per partition" if callable(size) else f"{size:g}" if isinstance(size, int | float) else str(size)


def _numbers(table: Mapping[str, Any]) -> bool:
    return all(isinstance(size, int | float) for size in table.values())


def _asker(frame: Any) -> str:
    """The function that is being decorated, or the name that is being given a value, where compute() was called."""
    caller = frame.f_back
    path, line = caller.f_code.co_filename, caller.f_lineno
    place = f"{Path(path).name}:{line}"
    try:
        statements = list(ast.walk(ast.parse(Path(path).read_text())))
    except (OSError, SyntaxError):  # typed at a prompt
        return place
    for found in statements:
        if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
            if any(call.lineno <= line <= (call.end_lineno or line) for call in found.decorator_list):
                return f"asset {found.name} ({place})"
        elif isinstance(found, ast.Assign) and found.lineno <= line <= (found.end_lineno or line):
            return f"{ast.unparse(found.targets[0])} ({place})"
    return place
