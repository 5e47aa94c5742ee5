"""What counting costs, and what a scrape costs (cb/metrics.h).

    scripts/bench telemetry [--rounds N] [--series N]

Processor time on one thread. `histogram` includes the making of a pseudo-random value (about a nanosecond). A rendering has N series of two labels
(default 5,000) in families of a hundred.
"""

import argparse
import statistics
import subprocess
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--series", type=int, default=5000)
    args = parser.parse_args()
    got = {}
    for _ in range(args.rounds):
        out = subprocess.run([args.build / "tests/bench/telemetry_speed", str(args.series)], check=True, capture_output=True, text=True).stdout
        for name, ns in (line.split() for line in out.splitlines()):
            got.setdefault(name, []).append(float(ns))
    print("| row | CPU, median (range) |\n|---|---|")
    for name, values in got.items():
        unit, scale = ("ns", 1) if name in ("counter", "histogram") else ("ms", 1e6)
        low, middle, high = (f(values) / scale for f in (min, statistics.median, max))
        print(f"| `{name}` | {middle:.2f} {unit} ({low:.2f}-{high:.2f}) |")


if __name__ == "__main__":
    main()
