"""What checking a token costs beside the bare verification of its signature by GnuTLS, in turns and in processor time.

    scripts/bench auth [--rounds N]

`bare` verifies the same bytes with the same key; `full` is cb_jwt_verify() of a token with ten claims; `again` is a token that
cb_jwt_cache_verify() knows. Median and range over the rounds.
"""

import argparse
import statistics
import subprocess
from pathlib import Path

ALGS = (("RS256", 20_000), ("ES256", 4_000), ("EdDSA", 5_000))
KINDS = (("bare", 1), ("full", 1), ("again", 50))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    speed, allocations = {}, {}
    for _ in range(args.rounds):
        for alg, count in ALGS:
            for kind, times in KINDS:
                out = subprocess.run([args.build / "tests/bench/auth_speed", f"{kind}-{alg}", str(count * times)], check=True,
                                     capture_output=True, text=True)
                done, cpu, allocated = out.stdout.split()
                speed.setdefault((alg, kind), []).append(int(done) / float(cpu))
                allocations[alg, kind] = int(allocated) / int(done)
    print("| algorithm | bare signature, a second | full check, a second | full / bare | known token, a second | its allocations |\n"
          "|---|---|---|---|---|---|")
    for alg, _ in ALGS:
        cell = {kind: f"{statistics.median(speed[alg, kind]):,.0f} ({min(speed[alg, kind]):,.0f}-{max(speed[alg, kind]):,.0f})" for kind, _ in KINDS}
        ratio = statistics.median(full / bare for full, bare in zip(speed[alg, "full"], speed[alg, "bare"]))
        print(f"| {alg} | {cell['bare']} | {cell['full']} | {ratio:.2f} | {cell['again']} | {allocations[alg, 'again']:.0f} |")


if __name__ == "__main__":
    main()
