"""One file per stage: `run(context)` takes the configuration and leaves files and metrics."""
