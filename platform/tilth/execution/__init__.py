"""How a step runs: on which machine, in which process, for how long, over which partitions."""
