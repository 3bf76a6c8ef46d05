"""What asks for partitions: conditions, the sensors that look at them, and what finds requests that were lost."""
