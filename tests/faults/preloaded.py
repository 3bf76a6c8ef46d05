"""Imported by the process that tests/faults/backfill.py forks from: what takes long in a run, done before."""

from assets.flights.definitions import defs

_dbt = (defs.resources or {})["dbt"]
_dbt.preload()
