"""A request for a machine: what it says to Kubernetes, what it refuses, and what it says on a laptop."""

import json
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_k8s.job import get_user_defined_k8s_config
from hypothesis import given
from hypothesis import strategies as st

from tilth.execution.compute import (
    TAG,
    Request,
    as_quantity,
    compute,
    leaves_spot,
    quantity,
    request_of,
    requested,
    shortages,
)
from tilth.execution.timeouts import timeout
from tilth.settings import Deployment

POOLS = {
    "general": {"default": True, "selector": {"pool": "general"}},
    "spot": {"spot": True, "selector": {"pool": "spot"}, "tolerations": [{"key": "spot", "operator": "Exists"}]},
    "l4": {
        "gpu_type": "l4",
        "selector": {"pool": "l4"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    },
    "l4-spot": {"gpu_type": "l4", "spot": True, "selector": {"pool": "l4-spot"}},
}


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTH_NODE_POOLS", json.dumps(POOLS))


def config(tags: dict[str, str]) -> Any:
    """As Dagster's own executor on Kubernetes reads it."""
    return get_user_defined_k8s_config(tags)


def test_a_request_is_what_dagsters_own_executor_reads() -> None:
    read = config(compute(cpu=0.5, memory="2Gi", gpu=1, disk="10Gi", image="app:gpu", timeout="2h"))
    assert read.container_config == {
        "image": "app:gpu",
        "resources": {
            "requests": {"cpu": "500m", "memory": "2Gi", "ephemeral-storage": "10Gi", "nvidia.com/gpu": "1"},
            "limits": {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "10Gi", "nvidia.com/gpu": "1"},
        },
    }
    assert read.pod_spec_config["active_deadline_seconds"] == 7200
    assert read.merge_behavior.value == "SHALLOW"


def test_tags_are_for_people_to_filter_by(pools: None) -> None:
    tags = compute(cpu=4, memory="64Gi", gpu=2, gpu_type="l4", spot=True, timeout="90s")
    shown = {name: value for name, value in tags.items() if name not in (TAG, "dagster-k8s/config")}
    assert shown == {
        "cpu": "4", "memory": "64Gi", "gpu": "nvidia-l4", "spot": "true", "tilth/timeout": "90s",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "selector"),
    [
        ({"cpu": 1}, None),  # the deployment's default pool
        ({"cpu": 1, "spot": True}, {"pool": "spot"}),
        ({"gpu": 1}, {"pool": "l4"}),
        ({"gpu": 1, "gpu_type": "l4", "spot": True}, {"pool": "l4-spot"}),
        ({"pool": "spot"}, {"pool": "spot"}),
        ({"gpu": 1, "pool": "l4-spot"}, {"pool": "l4-spot"}),
    ],
)
def test_the_pool_is_the_one_that_has_what_is_asked_for(
    pools: None, asked: dict[str, Any], selector: dict[str, str] | None
) -> None:
    assert config(compute(**asked)).pod_spec_config.get("node_selector") == selector


def test_where_no_pool_has_gpus_it_is_left_to_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for pools in ({}, {"general": {"default": True, "selector": {"pool": "general"}}}):
        monkeypatch.setenv("TILTH_NODE_POOLS", json.dumps(pools))
        pod = config(compute(gpu=1, gpu_type="h100")).pod_spec_config
        assert pod["node_selector"] == {}  # not the default pool's
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]


@pytest.mark.parametrize(
    ("asked", "leaves"),
    [
        ({"spot": True}, True),
        ({"spot": True, "pool": "spot"}, False),
        ({"spot": True, "gpu": 1}, True),
        ({"spot": True, "pool": "l4-spot", "gpu": 1}, False),
        ({}, False),
    ],
)
def test_a_step_leaves_spot_nodes_if_others_fit(pools: None, asked: dict[str, Any], leaves: bool) -> None:
    assert leaves_spot(Request(**asked), Deployment().node_pools) is leaves
    assert not leaves_spot(Request(**asked), {})


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"gpu": 1, "gpu_type": "h100"}, "'h100': no node pool has it; there are l4 (pool l4), l4 (pool l4-spot)"),
        ({"gpu": 1, "pool": "general"}, "pool 'general' has no GPU; GPUs there are: l4 (pool l4)"),
        ({"gpu": 1, "gpu_type": "h100", "pool": "l4"}, "pool 'l4' has l4; GPUs there are"),
        ({"memory": "64GB"}, "'64GB' is no amount of bytes"),
        ({"memory": "0Gi"}, "'0Gi' is no amount"),
        ({"memory": "-1Gi"}, "'-1Gi' is no amount"),
        ({"memory": 64}, "64 is no amount"),
        ({"memory": {"2013-01": "1Gb"}}, "'1Gb' is no amount"),
        ({"memory": {}}, "names no partition"),
        ({"disk": "lots"}, "disk: 'lots'"),
        ({"cpu": 0}, "cpu=0"),
        ({"cpu": -2}, "cpu=-2"),
        ({"cpu": "4"}, "cpu='4'"),
        ({"cpu": True}, "cpu=True"),
        ({"gpu": 0}, "gpu=0"),
        ({"gpu": 0.5}, "gpu=0.5"),
        ({"gpu": 1, "gpu_type": "l5"}, "gpu_type='l5' is unknown; known are a10"),
        ({"gpu_type": "l4"}, "without gpu="),
        ({"timeout": "2 hours"}, "timeout('2 hours')"),
        ({"pool": "big"}, "'big' is not among this deployment's node pools: general"),
    ],
)
def test_what_is_no_request_is_refused_where_it_is_written_and_names_the_asset(
    pools: None, asked: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=r"compute\(\.\.\.\) of asset greedy \(test_compute\.py:\d+\): ") as refused:

        @dg.asset(op_tags=compute(**asked))
        def greedy() -> None: ...

    assert problem in str(refused.value)


def test_a_shared_request_is_named_by_what_it_is_called() -> None:
    with pytest.raises(ValueError, match=r"of BIG \(test_compute\.py"):
        BIG = {"op_tags": compute(memory="1 GB")}  # noqa: F841, N806


def double_in_december(key: str) -> str:
    return "8Gi" if key.startswith("2013-12") else "4Gi"


@pytest.mark.parametrize("memory", [{"2013-12": "8Gi", "default": "4Gi"}, double_in_december])
def test_a_size_may_depend_on_the_partition_and_a_step_over_several_gets_the_largest(memory: Any) -> None:
    request = request_of(compute(memory=memory, cpu=2))
    assert request is not None
    assert request.of(["2013-11"]).memory == "4Gi"
    assert request.of(["2013-11", "2013-12"]).memory == "8Gi"
    assert request.of(["2013-12"]).cpu == 2


@pytest.mark.parametrize(
    ("memory", "problem"),
    [({"2013-12": "8Gi"}, 'no size for 2013-11, nor a "default"'), (lambda _: None, "None is no amount of bytes")],
)
def test_a_partition_without_a_size_is_named(memory: Any, problem: str) -> None:
    request = request_of(compute(memory=memory))
    assert request is not None
    with pytest.raises(ValueError, match="2013-11") as refused:
        request.of(["2013-11"])
    assert problem in str(refused.value)


def of_size(gibibytes: int) -> Callable[[str], str]:
    return lambda _: f"{gibibytes}Gi"


def sized(gibibytes: int, key: str) -> str:
    return f"{gibibytes}Gi"


def memories(*sizes: Callable[[str], str]) -> list[str]:
    """What tags say that were all made before one is read."""
    tags = [compute(memory=size) for size in sizes]
    return [request.of(["a"]).memory for found in tags if (request := request_of(found))]


def test_each_function_gives_its_own_size() -> None:
    two, four = (lambda _: "2Gi"), (lambda _: "4Gi")
    assert memories(two, four, two) == ["2Gi", "4Gi", "2Gi"]
    assert memories(of_size(8), of_size(16)) == ["8Gi", "16Gi"]
    assert memories(partial(sized, 8), partial(sized, 16)) == ["8Gi", "16Gi"]
    assert compute(memory=two) == compute(memory=two)


def test_another_load_of_a_file_finds_its_functions_by_the_same_names(tmp_path: Path) -> None:
    path = tmp_path / "definitions.py"
    path.write_text(
        "from functools import partial\nfrom tilth.execution.compute import compute\n\n"
        "tags = [compute(memory=lambda key, size=size: size) for size in ('1Gi', '2Gi')]\n"
        "tags += [compute(memory=partial(lambda size, key: size, size)) for size in ('3Gi', '4Gi')]\n"
    )
    first, second = ([dict(tags) for tags in runpy.run_path(str(path))["tags"]] for _ in range(2))
    assert first == second
    assert [request.of([""]).memory for tags in first if (request := request_of(tags))] == ["1Gi", "2Gi", "3Gi", "4Gi"]


def test_a_function_that_is_not_defined_here_is_named() -> None:
    with pytest.raises(ValueError, match="by the function elsewhere:size:7, which this process did not define"):
        request_of({TAG: json.dumps({"memory": {"function of": "elsewhere:size:7"}})})


@pytest.mark.parametrize(
    ("tags", "limit"),
    [
        ({**timeout("2h"), **compute(memory="1Gi")}, "2h"),
        ({**compute(memory="1Gi", timeout="1h"), **timeout("2h")}, "1h"),
        (compute(memory="1Gi"), None),
    ],
)
def test_a_timeout_beside_a_request_is_of_its_pod(tags: dict[str, str], limit: str | None) -> None:
    request = request_of(tags)
    assert request is not None
    assert request.timeout == limit


def test_dagsters_own_executor_gives_the_largest_of_a_table() -> None:
    read = config(compute(memory={"2013-12": "8Gi", "default": "512Mi"}))
    assert read.container_config["resources"]["limits"] == {"memory": "8Gi"}


@given(st.integers(1, 2**50))
def test_a_quantity_reads_as_it_was_written(size: int) -> None:
    written = as_quantity(size << 20)
    assert quantity(written) == size << 20


def test_a_laptop_is_short_of_what_it_does_not_have() -> None:
    request = request_of(compute(cpu=10_000, memory="900Ti", gpu=99))
    assert request is not None
    cpu, memory, gpu = shortages(request)
    assert cpu.startswith("10000 CPU where there are ")
    assert memory.startswith("900Ti memory where there are ")
    assert gpu.startswith("99 GPU where there are ")


def test_what_was_asked_for_stands_beside_what_was_used() -> None:
    assert requested(compute(cpu=4, memory="64Gi", gpu=1, gpu_type="l4")) == {
        "step/requested": "4 CPU, 64Gi memory, 1 GPU l4"
    }
    assert requested({}) == {}


def test_pools_of_a_deployment_are_read_from_its_environment(pools: None) -> None:
    found = Deployment().node_pools
    assert found["l4"].tolerations == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert [name for name, pool in found.items() if pool.default] == ["general"]
