"""When an asset's partition is made by itself: named conditions, passed to `automation_condition=`.

Dagster's `AutomationCondition.eager()` holds only for the latest time window, so a past day that lands late, or a year
of history, would never be requested. The conditions here drop that clause on purpose: a partition is requested
because its own inputs came or changed, whenever that is.

Every condition waits until nothing it reads is being made, requests a partition once per change of *content*, and
leaves a partition alone while a run for it is under way. What changes in the moment of a request or during a run is
seen by `tilth.automation.reconciler`.

A run that changes an input may be about to make the partition too: that is waited for. Only where it failed before it
came to the partition, as does a range with one bad day, the partition is requested by itself.

What an asset says of an input is heeded by all of them, by the reconciler and by partition lag: that its absent
partitions hold nothing back (`metadata=OPTIONAL` on the `AssetIn` or `AssetDep`), or that it must be there but its
refresh makes no partition again (`metadata=REFERENCE`).
"""

import dagster as dg
from dagster import AutomationCondition as Condition

from tilth._dagster.asset_graph import AssetGraph
from tilth._dagster.automation import any_input_matches, of_assets
from tilth.automation.attempts import Answered
from tilth.versioning.inputs import optional_inputs, reference_inputs


def _settled(due: dg.AutomationCondition, label: str) -> dg.AutomationCondition:
    """`due` happened since the last request, what is required is there, and nothing is under way."""
    # Not since_last_handled(), which also forgets what was there before the sensor's first tick.
    pending = due.since(Condition.newly_requested() | Condition.newly_updated())
    idle = ~Condition.any_deps_in_progress() & ~Condition.in_progress()
    unanswered = ~Answered() | Condition.any_deps_match(Condition.will_be_requested())
    return (pending & _present() & idle & unanswered).with_label(label)


def _changed() -> dg.AutomationCondition:
    """An input came or has new content."""
    # Also by a run that makes the asset (executed_with_root_target): it may make other partitions of it, the features
    # of a day that was sent again, but not those of the 28 days after it.
    return any_input_matches(Condition.data_version_changed(), reference_inputs) | Condition.newly_missing()


def _present() -> dg.AutomationCondition:
    """Every required input is there or on its way; where all may be absent, at least one is."""
    missing = any_input_matches(Condition.missing() & ~Condition.will_be_requested(), optional_inputs)
    some = Condition.any_deps_match(~Condition.missing() | Condition.will_be_requested())
    return ~missing & (of_assets(_requires_something, "Not all that it reads may be absent") | some)


def _requires_something(graph: AssetGraph, key: dg.AssetKey) -> bool:
    return not graph.parents(key) or bool(graph.parents(key) - optional_inputs(graph, key))


def on_new_data() -> dg.AutomationCondition:
    """A partition is made when an upstream partition that it reads came or has new content, at any age: transformations
    and features, partition by partition. Making the same content again requests nothing. It is requested together with
    what it reads of required inputs, so that a chain of such assets is one run.
    """
    beside = any_input_matches(
        Condition.will_be_requested(), lambda graph, key: optional_inputs(graph, key) | reference_inputs(graph, key)
    )
    return _settled(_changed() | beside, "on new data")


def on_complete_window(*, again: str | None = None) -> dg.AutomationCondition:
    """A partition is made as soon as every upstream partition of its window is there, and again when one of them has
    new content: what summarizes many partitions, such as a training set of a month.

    Args:
        again: a cron schedule. Changes are gathered, and a partition that exists is made again at its next tick: of
            days that are sent again one by one, the first does not trigger all that is downstream, and then each other.
    """
    due, label = _changed(), "on complete window"
    if again is not None:
        handled = Condition.newly_requested() | Condition.newly_updated()
        due = due.since(handled) & (Condition.missing() | Condition.cron_tick_passed(again).since(due | handled))
        label = f"{label}; again {again}"
    return _settled(due, label)


def on_changed_data() -> dg.AutomationCondition:
    """A partition is made when an upstream partition came or has new content, and all that it reads is there: models,
    and what is scored by them.
    """
    return _settled(_changed(), "on changed data")
