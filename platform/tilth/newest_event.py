"""The number of the newest event: what a sensor asks first, and at most looks nothing else.

To open Dagster's instance takes a look longer than that one question, on SQLite 15 ms of CPU, on PostgreSQL a login for
each of its storages. So a process keeps the instance open that answers it.
"""

import os
import threading

import dagster as dg

_lock = threading.Lock()
_kept: tuple[int, object, dg.DagsterInstance] | None = None
"""The process that opened it, the reference by which, and the instance."""


def newest_event(context: dg.SensorEvaluationContext) -> int:
    """The number of the newest event in the event log of the sensor's instance; 0 where there is none."""
    return _instance_of(context).event_log_storage.get_maximum_record_id() or 0


def _instance_of(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    global _kept
    reference = context.instance_ref
    if reference is None:  # an instance of its own, as in a test
        return context.instance
    with _lock:
        if _kept is None or _kept[:2] != (os.getpid(), reference):
            _kept = os.getpid(), reference, dg.DagsterInstance.from_ref(reference)
        return _kept[2]
