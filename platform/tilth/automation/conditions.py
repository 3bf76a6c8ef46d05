"""When an asset's partition is made by itself: named conditions, passed to `automation_condition=`.

Dagster's `AutomationCondition.eager()` holds only for the latest time window, so a past day that lands late, or a year
of history, would never be requested. The conditions here drop that clause on purpose: a partition is requested
because its own inputs came or changed, whenever that is.

Every condition waits until nothing it reads is being made, asks for a partition once per change of *content*, and
leaves a partition alone while a run for it is under way. What changes in the moment of a request or during a run is
seen by `tilth.automation.reconciler`.

A run that changes an input may be about to make the partition too: that is waited for. Only where it failed before it
came to the partition, as does a range with one bad day, the partition is asked for by itself.
"""

import dagster as dg
from dagster import AutomationCondition as Condition

from tilth.automation.attempts import Answered


def _settled(
    due: dg.AutomationCondition, required: dg.AutomationCondition, label: str, **options: object
) -> dg.AutomationCondition:
    """`due` happened since the last request, `required` inputs are there, and nothing is under way.

    The label, which the UI shows, says with which options.
    """
    # Not since_last_handled(), which also forgets what was there before the sensor's first look.
    pending = due.since(Condition.newly_requested() | Condition.newly_updated())
    idle = ~Condition.any_deps_in_progress() & ~Condition.in_progress()
    unanswered = ~Answered() | Condition.any_deps_match(Condition.will_be_requested())
    said = [f"{name} {value}".replace('"', "") for name, value in options.items() if value is not None]
    return (pending & required & idle & unanswered).with_label("; ".join([label, *said]))


def _changed(ignored: dg.AssetSelection | None = None) -> dg.AutomationCondition:
    """An input came or has new content."""
    # Also by a run that makes the asset (executed_with_root_target): it may make other partitions of it, the features
    # of a day that was sent again, but not those of the 28 days after it.
    changed = Condition.any_deps_match(Condition.data_version_changed())
    return (changed.ignore(ignored) if ignored else changed) | Condition.newly_missing()


def _present(optional: dg.AssetSelection | None) -> dg.AutomationCondition:
    """Every required input is there or on its way; where all may be absent, at least one is."""
    missing = Condition.any_deps_missing()
    if optional is None:
        return ~missing
    return ~missing.ignore(optional) & Condition.any_deps_match(~Condition.missing() | Condition.will_be_requested())


def on_new_data(
    *, optional: dg.AssetSelection | None = None, reference: dg.AssetSelection | None = None
) -> dg.AutomationCondition:
    """A partition is made when an upstream partition that it reads came or has new content, at any age: transformations
    and features, partition by partition. Making the same content again asks for nothing. It is asked for together with
    what it reads of required inputs, so that a chain of such assets is one run.

    Args:
        optional: upstream assets whose absent partitions do not hold this one back (a history with gaps).
        reference: upstream tables that must exist but whose refresh does not make every partition again.
    """
    beside = Condition.any_deps_match(Condition.will_be_requested())
    for other in (optional, reference):
        beside = beside.ignore(other) if other else beside
    return _settled(
        _changed(reference) | beside, _present(optional), "on new data", optional=optional, reference=reference
    )


def on_complete_window(*, again: str | None = None) -> dg.AutomationCondition:
    """A partition is made as soon as every upstream partition of its window is there, and again when one of them has
    new content: what summarizes many partitions, such as a training set of a month.

    Args:
        again: a cron schedule. Changes are gathered, and a partition that exists is made again at its next tick: of
            days that are sent again one by one, the first does not set off all that is downstream, and then each other.
    """
    due = _changed()
    if again is not None:
        handled = Condition.newly_requested() | Condition.newly_updated()
        due = due.since(handled) & (Condition.missing() | Condition.cron_tick_passed(again).since(due | handled))
    return _settled(due, _present(None), "on complete window", again=again)


def on_changed_data(*, optional: dg.AssetSelection | None = None) -> dg.AutomationCondition:
    """A partition is made when an upstream partition came or has new content, and all that it reads is there: models,
    and what is scored by them. `optional` as in `on_new_data`.
    """
    return _settled(_changed(), _present(optional), "on changed data", optional=optional)
