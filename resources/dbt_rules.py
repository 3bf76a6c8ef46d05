"""What a dbt project must keep to so that Dagster's partitions hold, and nothing in it is left out without a word."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# What dbt puts into the warehouse.
_STORED = ("model", "seed", "snapshot")


def check_project(manifest: Mapping[str, Any], *, partitioned: str, whole: str, strategy: str) -> None:
    """Refuse a project of which an asset would lose its other partitions, or of which something would be no asset.

    Args:
        manifest: what dbt parsed, as in manifest.json.
        partitioned: the tag of what is made by partition.
        whole: the tag of what is made whole.
        strategy: the incremental strategy that replaces the rows of the partitions of a build, and no others.

    Raises:
        ValueError: naming each model, seed or snapshot, its file, and the setting to change.
    """
    stored = [node for node in manifest["nodes"].values() if node["resource_type"] in _STORED]
    faults = [fault for node in stored for fault in _faults(node, (partitioned, whole), strategy)]
    _refuse([*_outside_of_transactions(manifest), *faults])


def check_transactions(manifest: Mapping[str, Any]) -> None:
    """Refuse a project with settings that cannot be kept where a build is one transaction.

    Raises:
        ValueError: as `check_project`.
    """
    _refuse([*_outside_of_transactions(manifest)])


def _outside_of_transactions(manifest: Mapping[str, Any]) -> Iterator[str]:
    for node in manifest["nodes"].values():
        if node["resource_type"] in (*_STORED, "test"):
            yield from _outside_of_the_transaction(node)


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise ValueError("The dbt project cannot be made into assets.\n" + "\n".join(faults))


def _losing_others(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Settings by which a build of some partitions changes the others."""
    if config.get("full_refresh") is not False:
        yield (
            f"{name} has full_refresh: {config.get('full_refresh')}, by which a build can leave nothing but its own "
            "partitions. Set full_refresh: false."
        )
    change = config.get("on_schema_change")
    if change not in ("append_new_columns", "fail"):
        yield (
            f"{name} has on_schema_change: {change}, by which columns go in silence. Set append_new_columns or fail."
        )


def _outside_of_the_transaction(node: Mapping[str, Any]) -> Iterator[str]:
    """Settings that cannot be kept where a build is one transaction, which is rolled back when a test fails."""
    config, name = node["config"], _name(node)
    if any(not hook.get("transaction", True) for when in ("pre-hook", "post-hook") for hook in config.get(when) or ()):
        yield f"{name} has a hook with transaction: false, and a build is one transaction. Take the hook out."
    if node.get("language") == "python":
        yield f"{name} is in Python, by which dbt writes outside of the build's transaction. Make it a Dagster asset."
    if config.get("store_failures"):
        yield f"{name} has store_failures: true, and what fails is rolled back with its build. Set it to false."


def _name(node: Mapping[str, Any]) -> str:
    return f"dbt {node['resource_type']} {node['name']} ({node['original_file_path']})"


def _faults(node: Mapping[str, Any], tags: Sequence[str], strategy: str) -> Iterator[str]:
    partitioned, whole = tags
    config, kind = node["config"], node["resource_type"]
    materialized = config.get("materialized")
    name = _name(node)
    of = [tag for tag in tags if tag in node["tags"]]
    if materialized == "ephemeral":  # a part of what selects from it, and nothing by itself
        return
    if not of:
        yield f"{name} has neither of the tags {partitioned} and {whole}, so that no step would make it. " + (
            "Move it to a folder that gives it one."
            if kind == "model"
            else f"Give it tags: {whole}, in its properties or under {kind}s: in dbt_project.yml."
        )
    if len(of) > 1:
        yield f"{name} has both of the tags {partitioned} and {whole}. Leave it one."
    if of != [partitioned]:
        return
    if kind != "model":
        yield f"{name} is tagged {partitioned}, and a {kind} has no partitions. Tag it {whole}."
        return
    if materialized == "incremental" and config.get("incremental_strategy") != strategy:
        given = config.get("incremental_strategy")
        yield (
            f"{name} is tagged {partitioned} and has "
            + (f"incremental_strategy: {given}" if given else "no incremental_strategy")
            + f", by which a build would not replace exactly its own partitions. Set incremental_strategy: {strategy}."
        )
    elif materialized not in ("view", "incremental"):
        yield (
            f"{name} is tagged {partitioned} and has materialized: {materialized}, by which each build would leave "
            f"nothing but its own partitions. Set materialized: incremental with incremental_strategy: {strategy}, or "
            "view."
        )
    elif materialized == "incremental":
        yield from _losing_others(name, config)
    if not (node.get("meta") or config.get("meta") or {}).get("partition_expr"):
        yield f"{name} is tagged {partitioned} and has no meta: {{partition_expr: <the column of its partition>}}."
