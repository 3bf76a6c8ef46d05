"""What a launcher of runs, the supervisor and a template say to each other (tilth/execution/supervisor.py).

By itself, because it is read before Dagster is imported.
"""

ADDRESS = "TILTH_RUN_TEMPLATES"
"""The variable by which a launcher finds the supervisor: the path of its socket."""
CANNOT, GO, RETIRE = b"cannot", b"go", b"retire"
