"""Times of one op as JSON: `python -m benchmarks.sample OP`; what `--compare` runs in turns.

Prints {"c2am": folder of the package that ran, "ms": {"<shape>, <provider> x<threads>": median}}.
"""

import argparse
import json
import statistics
from pathlib import Path

import c2am
from benchmarks.ops import cases
from benchmarks.runner import default_clock, entries, time_entries


def main() -> None:
    """Print the times of all providers but the plain reference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sample")
    parser.add_argument("op")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--image", type=Path)
    options = parser.parse_args()
    medians = {}
    for case in cases(options.op, options.image):
        timed = entries(case, options.threads, peers=False)
        fast = [entry for entry in timed if "reference" not in entry.provider] or timed
        samples = time_entries(fast, budget_s=2.0, clock=default_clock(), least=3)
        for entry, times in samples.items():
            name = f"{case.shape}, {entry.provider} x{entry.threads}"
            medians[name] = statistics.median(times)
    print(json.dumps({"c2am": str(Path(c2am.__file__).parent), "ms": medians}))


if __name__ == "__main__":
    main()
