"""What a partition holds, of which code and inputs it was made, and whether that is still so."""

from tilth._dagster.step_events import change_materializations
from tilth.versioning import inputs, partitions

# Wherever anything of this room is imported, what steps record is complete. An input's version is the partition's own.
change_materializations(partitions.with_own_versions, inputs.with_inputs)
