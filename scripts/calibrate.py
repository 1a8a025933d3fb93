"""Run recipes with many seeds and print what their scores span.

The ranges in each recipe's EXPECTED, and the time in its docstring, come from this table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from recipes.__main__ import describe, names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes; all of them if none is named")
    parser.add_argument("--seeds", type=int, default=10, help="run with seeds 0 to SEEDS - 1 (default 10)")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(f"--seeds must be at least 2. Received: {arguments.seeds}")
    if unknown := set(arguments.names) - set(names()):
        parser.error(f"no recipe is called {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    print("| recipe | score | lowest | mean | highest | expected | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.names or names():
        reports = run(name, arguments.seeds)
        seconds = reports[0]["seconds"]
        for metric in reports[0]["metrics"]:
            scores = [report["metrics"][metric] for report in reports]
            row = [min(scores), statistics.mean(scores), max(scores)]
            expected = describe(name)["expected"].get(metric, "")
            print(
                f"| {name} | {metric} |",
                *(f"{score:.4g} |" for score in row),
                f"{expected} | {seconds:.0f} |",
            )


def run(name: str, seeds: int) -> list[dict]:
    """Run a recipe at its default options on the real data and return what came out for each seed."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--seeds", str(seeds), "--out", folder, "--data", "real", "--jobs", "1"]
        result = subprocess.run([sys.executable, "-m", f"recipes.{name}", *options], stdout=sys.stderr)
        studies = list(Path(folder).rglob("study.json"))
        if not studies:  # outside the range is no failure here: that is what we want to know
            sys.exit(result.returncode)
        return json.loads(studies[0].read_text(encoding="utf-8"))["jobs"]


if __name__ == "__main__":
    main()
