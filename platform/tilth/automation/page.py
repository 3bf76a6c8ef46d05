"""A page that says what triggers what, made of a module's definitions: `python -m tilth.automation.page <module>`."""

import argparse
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, graph_of
from tilth._dagster.event_log import NO_PARTITION
from tilth.automation import conditions as automation
from tilth.partition_keys import parts
from tilth.versioning.inputs import optional_inputs, reference_inputs

CONDITIONS: dict[str, Callable[..., dg.AutomationCondition]] = {
    "on new data": automation.on_new_data,
    "on complete window": automation.on_complete_window,
    "on changed data": automation.on_changed_data,
}


def page(definitions: dg.Definitions, module: str) -> str:
    """Markdown: the sensors, a table of every asset that is made by itself, and what each condition means."""
    repository = definitions.get_repository_def()
    graph = graph_of(repository)
    lines = [
        "# What triggers what",
        "",
        f"Made by `python -m tilth.automation.page {module} > docs/automation.md`; a test compares the two.",
        "",
        "| sensor | ticks every | what it does |",
        "|---|---|---|",
    ]
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        every = max(sensor.minimum_interval_seconds or 30, 5)  # the daemon itself ticks every five seconds
        lines.append(f"| `{sensor.name}` | {every} s | {sensor.description} |")
    lines += [
        "",
        "An asset's partition is requested when what it reads comes or changes, as its condition says. Where it reads "
        "more than the partition of its own name, the table says how many, for its last one. Absent partitions of what "
        "is *optional* hold nothing back; a *reference* must be there, but its refresh makes nothing again: "
        "`dg.AssetIn(…, metadata=OPTIONAL)` says so, or `REFERENCE`.",
        "",
        "| asset | by | condition | reads |",
        "|---|---|---|---|",
    ]
    with _example_keys(graph):
        for key in graph.keys:
            condition, partitions = graph.condition(key), graph.partitions(key)
            if condition is None:
                continue
            last = (partitions.get_last_partition_key() if partitions else None) or NO_PARTITION
            reads = graph.reads(key, [last])[last]
            said = dict.fromkeys(optional_inputs(graph, key), " optional") | dict.fromkeys(
                reference_inputs(graph, key), " reference"
            )
            read = [f"`{p.to_user_string()}`{_window(last, keys)}{said.get(p, '')}" for p, keys in reads.items()]
            label = condition.get_label() or condition.name
            row = f"`{key.to_user_string()}` | {_partitions(partitions)} | `{label}` | {', '.join(read)}"
            lines.append(f"| {row} |")
    for label, condition in CONDITIONS.items():
        meaning = inspect.cleandoc(condition.__doc__ or "").replace("\nArgs:\n", "\n")
        meaning = meaning.replace("\n        ", " ").replace("\n    ", "\n- ")
        lines += ["", f"## {label.capitalize()}: `{condition.__name__}`", "", meaning]
    return "\n".join(lines) + "\n"


@contextmanager
def _example_keys(graph: AssetGraph) -> Iterator[None]:
    """One key for all of each dynamic partitions definition, whose own are kept in an instance."""
    with dg.DagsterInstance.ephemeral() as instance:
        for key in graph.keys:
            for definition in _dimensions(graph.partitions(key)):
                if isinstance(definition, dg.DynamicPartitionsDefinition) and definition.name:
                    instance.add_dynamic_partitions(definition.name, [f"each of {definition.name}"])
        with dg.partition_loading_context(dynamic_partitions_store=instance):
            yield


def _dimensions(definition: dg.PartitionsDefinition | None) -> list[dg.PartitionsDefinition | None]:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return [dimension.partitions_def for dimension in definition.partitions_defs]
    return [definition]


def _window(partition: str, read: list[str]) -> str:
    if read in ([partition], [NO_PARTITION], []):
        return ""
    named = sorted(" ".join(parts(key)) for key in read)
    return f" ({named[0]})" if len(read) == 1 else f" ({len(read)}: {named[0]} to {named[-1]})"


def _partitions(definition: dg.PartitionsDefinition | None) -> str:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return " x ".join(dimension.name for dimension in definition.partitions_defs)
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return definition.schedule_type.name.lower() if definition.schedule_type else definition.cron_schedule
    return "" if definition is None else "name"


def main() -> None:
    """Print the page."""
    arguments = argparse.ArgumentParser(prog="python -m tilth.automation.page", description=__doc__)
    arguments.add_argument("module", help="the module that holds the definitions, as `defs`")
    module = arguments.parse_args().module
    print(page(importlib.import_module(module).defs, module), end="")


if __name__ == "__main__":
    main()
