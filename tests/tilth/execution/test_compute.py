"""A request for a machine: what it says to Kubernetes, what it refuses, and what it says on a laptop."""

import json
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
)
from tilth.execution.local import shortages
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
        ({"disk": "lots"}, "compute(disk='lots'): 'lots' is no amount"),
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
def test_what_is_no_request_is_refused_where_it_is_written_and_repeated(
    pools: None, asked: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=r"^compute\(") as refused:

        @dg.asset(op_tags=compute(**asked))
        def greedy() -> None: ...

    written = ", ".join(f"{name}={value!r}" for name, value in asked.items())
    assert str(refused.value).startswith(f"compute({written}): ")
    assert problem in str(refused.value)


def test_a_size_may_depend_on_the_partition_and_a_step_over_several_gets_the_largest() -> None:
    tags = compute(memory={"2013-12": "8Gi", "default": "4Gi"}, cpu=2)

    def given(*partitions: str) -> tuple[Any, Any]:
        request = request_of(tags, partitions)
        assert request is not None
        return request.memory, request.cpu

    assert given("2013-11") == ("4Gi", 2)
    assert given("2013-11", "2013-12") == ("8Gi", 2)
    assert given() == ("8Gi", 2)
    assert tags["memory"] == "per partition, up to 8Gi"
    assert requested(tags) == {"step/requested": "up to 2 CPU, 8Gi memory"}


def test_a_partition_without_a_size_is_named() -> None:
    tags = compute(memory={"2013-12": "8Gi"})
    with pytest.raises(ValueError, match='no size for 2013-11, nor a "default"'):
        request_of(tags, ["2013-11"])


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
