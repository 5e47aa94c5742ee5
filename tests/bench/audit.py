"""The audit log: durable records a second with group commit, and records verified a second (cb/audit.h).

    scripts/bench audit [--rounds N] [--count N] [--folder FOLDER]

One thread appends as fast as it can; a record counts when fdatasync() has returned for it. FOLDER decides which disk is measured (default: the
build folder). Verifying reads from the page cache; its figure is by processor time.
"""

import argparse
import statistics
import subprocess
import tempfile
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=500_000)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    durable, verified, shared = [], [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=args.folder or args.build) as folder:
            out = subprocess.run([args.build / "tests/bench/audit_speed", folder, str(args.count)], check=True, capture_output=True, text=True)
        records, wrote, commits, _, cpu, _ = map(float, out.stdout.split())
        durable.append(records / wrote)
        shared.append(records / commits)
        verified.append(records / cpu)
    print("| row | records a second, median (range) |\n|---|---|")
    for name, got in (("durable", durable), ("verified", verified)):
        print(f"| `{name}` | {statistics.median(got):,.0f} ({min(got):,.0f}-{max(got):,.0f}) |")
    print(f"\nRecords a sync: {statistics.median(shared):,.0f}.")


if __name__ == "__main__":
    main()
