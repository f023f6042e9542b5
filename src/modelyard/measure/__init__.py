"""Arrays in, verdicts out: metrics with intervals, paired comparison, cost, distances, sequential tests."""
