"""What requests partitions: conditions, their sensors, and the reconciler, which finds lost requests."""
