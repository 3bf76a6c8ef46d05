"""The few things that Dagster's open source lacks; each module has one subject."""

import os

# Under this variable, which pandera and pyspark set as they are imported, Arrow reads 9:00 in New York as 9:00 UTC in
# every value that is an object of Python's. Whoever finds it there, if empty, leaves it.
os.environ["PYARROW_IGNORE_TIMEZONE"] = ""
