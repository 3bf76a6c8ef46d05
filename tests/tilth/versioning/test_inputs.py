"""What an asset says of its inputs is read from where it says so: on the `AssetIn`, the `AssetDep` or dbt's spec."""

import dagster as dg
import pytest

from tilth import OPTIONAL, REFERENCE
from tilth._dagster.asset_graph import graph_of
from tilth.versioning.inputs import optional_inputs, reference_inputs, saying_of_inputs

HISTORY, LOOKUP, MADE = dg.AssetKey("history"), dg.AssetKey("lookup"), dg.AssetKey("made")


@dg.asset
def source() -> int:
    return 1


@dg.asset
def history() -> int:
    return 1


@dg.asset
def lookup() -> int:
    return 1


@dg.asset(
    name="made",
    ins={"history": dg.AssetIn(metadata={**OPTIONAL, "columns": ["day"]}), "lookup": dg.AssetIn(metadata=REFERENCE)},
)
def by_ins(source: int, history: int, lookup: int) -> None: ...


@dg.asset(
    name="made", deps=["source", dg.AssetDep("history", metadata=OPTIONAL), dg.AssetDep("lookup", metadata=REFERENCE)]
)
def by_deps() -> None: ...


spec = dg.AssetSpec("made", deps=["source", "history", "lookup"])
spec = saying_of_inputs(saying_of_inputs(spec, OPTIONAL, {HISTORY}), REFERENCE, {LOOKUP})


@dg.multi_asset(specs=[spec])
def by_spec() -> None: ...


@pytest.mark.parametrize("made", [by_ins, by_deps, by_spec], ids=["ins", "deps", "spec"])
def test_an_input_is_optional_or_a_reference_as_its_asset_says(made: dg.AssetsDefinition) -> None:
    graph = graph_of(dg.Definitions([source, history, lookup, made]))
    assert optional_inputs(graph, MADE) == {HISTORY}
    assert reference_inputs(graph, MADE) == {LOOKUP}
