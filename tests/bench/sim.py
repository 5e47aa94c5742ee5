"""How fast a simulation runs: packets of simulated links a second of processor time (docs/design/simulation.md).

    scripts/bench sim [--rounds N]

`quic`: one real connection that sends 300 MiB over 1 Gbit/s and 10 ms; packets of both directions count, encryption and all. `plain`: a
million datagrams of 1,200 bytes between plain sockets, which is the simulation alone. Processor time is the process's own.
"""

import argparse
import statistics
import subprocess
from pathlib import Path

ROWS = (("quic", 300), ("plain", 1_000_000))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    got = {name: [] for name, _ in ROWS}
    for _ in range(args.rounds):
        for name, size in ROWS:
            out = subprocess.run([args.build / "tests/bench/sim_speed", name, str(size)], check=True, capture_output=True, text=True)
            packets, cpu, virtual = out.stdout.split()
            got[name].append((int(packets) / float(cpu), float(virtual) / float(cpu)))
    print("| row | packets a second of CPU | virtual seconds a second of CPU |\n|---|---|---|")
    for name, _ in ROWS:
        speeds, factors = zip(*got[name])
        print(f"| `{name}` | {statistics.median(speeds):,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f}) | {statistics.median(factors):.1f} |")


if __name__ == "__main__":
    main()
