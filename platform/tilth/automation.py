"""When an asset's partition is made by itself: named conditions, passed to `automation_condition=`.

Dagster's `AutomationCondition.eager()` holds only for the latest time window, so a past day that lands late, or a year
of history, would never be requested. The conditions here drop that clause on purpose: a partition is requested
because its own inputs came or changed, whenever that is.

Every condition waits until nothing it reads is being made, asks for a partition once per change, and leaves a
partition alone while a run for it is under way.
"""

import dagster as dg
from dagster import AutomationCondition as Condition


def _settled(due: dg.AutomationCondition, required: dg.AutomationCondition, label: str) -> dg.AutomationCondition:
    """`due` happened since the last request, `required` inputs are there, and nothing is under way."""
    # Not since_last_handled(), which also forgets what was there before the sensor's first look.
    pending = due.since(Condition.newly_requested() | Condition.newly_updated())
    # An input that changes during the run may have been read before; the run's end must not count as its answer.
    during_the_run = (due & Condition.in_progress()).since(Condition.newly_requested())
    idle = ~Condition.any_deps_in_progress() & ~Condition.in_progress()
    return ((pending | during_the_run) & required & idle).with_label(label)


def _changed() -> dg.AutomationCondition:
    """An input has new content, made by another run than this partition's own."""
    return Condition.any_deps_match(Condition.data_version_changed() & ~Condition.executed_with_root_target())


def _present(optional: dg.AssetSelection | None) -> dg.AutomationCondition:
    """Every required input is there or on its way; where all may be absent, at least one is."""
    missing = Condition.any_deps_missing()
    if optional is None:
        return ~missing
    return ~missing.ignore(optional) & Condition.any_deps_match(~Condition.missing() | Condition.will_be_requested())


def on_new_data(
    *, optional: dg.AssetSelection | None = None, reference: dg.AssetSelection | None = None
) -> dg.AutomationCondition:
    """A partition is made when an upstream partition that it reads was made or made again, at any age.

    Args:
        optional: upstream assets whose absent partitions do not hold this one back (a history with gaps).
        reference: upstream tables that must exist but whose refresh does not make every partition again.
    """
    updated = Condition.any_deps_updated()
    due = updated.ignore(reference) if reference else updated
    return _settled(due | Condition.newly_missing(), _present(optional), "on new data")


def on_complete_window() -> dg.AutomationCondition:
    """A partition is made once every upstream partition of its window is there, and again when the *content* of one
    changed; making the same content again asks for nothing.
    """
    return _settled(_changed() | Condition.newly_missing(), _present(None), "on complete window")


def on_changed_data(*, optional: dg.AssetSelection | None = None) -> dg.AutomationCondition:
    """A partition is made when the content of an upstream partition changed; making the same content again asks for
    nothing. `optional` as in `on_new_data`.
    """
    return _settled(_changed() | Condition.newly_missing(), _present(optional), "on changed data")
