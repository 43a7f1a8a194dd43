"""The names of the files in a run's folder. Importing this loads no library."""

RECORD, METRICS = "run.json", "metrics.jsonl"
MODEL, ADAPTER = "model", "adapter"
BEGUN = "begun.json"  # the day on which the run began, for templates that write the date
PLAIN, SHARDED = "state.pt", "state-*"
LAST_GOOD = "last-good"  # the model before a step that was not finite
LOCK, LOCK_OWNER = ".run.lock", ".run.owner"  # of the run at work here; the second names its process
HALF_WRITTEN = ".*.tmp"  # left by a process that was killed while it wrote
