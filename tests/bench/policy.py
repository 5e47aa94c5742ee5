"""What a decision of a policy costs, in processor time.

    scripts/bench policy [--rounds N]

The last rule allows the request, so that every one before it had to be ruled out. `roles`: the sets of bits decide. `paths`: each
rule has a path pattern of its own with a free segment. `claims`: each rule asks for another value of a token's claim. `mixed`: each rule has roles,
methods, a path pattern, two source prefixes and a time window, and a tenth are denials. Median and range over the rounds.
"""

import argparse
import statistics
import subprocess
from pathlib import Path

ROWS = ("roles", "paths", "claims", "mixed")
SIZES = ((10, 1_000_000), (100, 500_000), (1000, 50_000))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cost, allocations = {}, 0
    for _ in range(args.rounds):
        for row in ROWS:
            for rules, count in SIZES:
                out = subprocess.run([args.build / "tests/bench/policy_speed", row, str(rules), str(count)], check=True, capture_output=True, text=True)
                done, cpu, allocated = out.stdout.split()
                cost.setdefault((row, rules), []).append(float(cpu) / int(done) * 1e9)
                allocations += int(allocated)
    print("| rules told apart by | " + " | ".join(f"{rules:,} rules, ns" for rules, _ in SIZES) + " |\n|---|" + "---|" * len(SIZES))
    for row in ROWS:
        cells = [f"{statistics.median(cost[row, rules]):,.0f} ({min(cost[row, rules]):,.0f}-{max(cost[row, rules]):,.0f})" for rules, _ in SIZES]
        print(f"| {row} | " + " | ".join(cells) + " |")
    print(f"\nAllocations: {allocations}")


if __name__ == "__main__":
    main()
