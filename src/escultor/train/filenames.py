"""What lies in a run's folder, by name; to import this loads no library."""

RECORD, METRICS = "run.json", "metrics.jsonl"
MODEL, ADAPTER = "model", "adapter"
PLAIN, SHARDED = "state.pt", "state-*"
LAST_GOOD = "last-good"  # the model as it was before a step that could not be taken
LOCK, LOCK_OWNER = ".run.lock", ".run.owner"  # of the run at work here; the second names its process
HALF_WRITTEN = ".*.tmp"  # whatever a process left that was killed while it wrote
