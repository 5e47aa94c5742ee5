"""What certifying costs: libcb's authority beside GnuTLS alone, in turns and in processor time of one core.

    scripts/bench ca [--rounds N]

Leaves with keys on P-256 and one name. `raw` builds, signs and encodes a certificate for a key that is there; cb_ca_sign() checks a
signing request first (its signature, its key, its names) and writes the index (lazy_index); `new key` rows make a key, too:
cb_ca_issue_pem(). Median and range over the rounds.
"""

import argparse
import statistics
import subprocess
from pathlib import Path

ROWS = (("raw", "sign"), ("rawkey", "issue"))
COUNT = 4000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    speed = {}
    for _ in range(args.rounds):
        for curve in ("p256", "p384"):
            for row in (row for pair in ROWS for row in pair):
                out = subprocess.run([args.build / "tests/bench/ca_speed", row, curve, str(COUNT)], check=True, capture_output=True, text=True)
                done, cpu = out.stdout.split()
                speed.setdefault((row, curve), []).append(int(done) / float(cpu))
    cell = {key: f"{statistics.median(all_):,.0f} ({min(all_):,.0f}-{max(all_):,.0f})" for key, all_ in speed.items()}
    print("| the authority's key | key given: GnuTLS alone, a second | `cb_ca_sign()` | new key: GnuTLS alone | `cb_ca_issue_pem()` |\n"
          "|---|---|---|---|---|")
    for curve, name in (("p256", "P-256"), ("p384", "P-384 (the default)")):
        print(f"| {name} | {cell['raw', curve]} | {cell['sign', curve]} | {cell['rawkey', curve]} | {cell['issue', curve]} |")


if __name__ == "__main__":
    main()
