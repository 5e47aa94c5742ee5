"""What counting costs, and what a scrape costs (cb/metrics.h).

    scripts/bench telemetry [--rounds N] [--series N] [--requests N]

Processor time on one thread. `histogram` includes the making of a pseudo-random value (about a nanosecond). A rendering has N series of two labels
(default 5,000) in families of a hundred.

Then what it costs a server, and a proxy, that their loop counts: instructions of that loop for each of N requests (default 4,000) of 1 KiB over connections that
are there, 8 at a time, counted by callgrind with and without a registry. A figure of wall time would say more about the machine than about the difference.
"""

import argparse
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

GOAL = 1.0  # percent that counting should add to a request

# Percent above which something has become worse. Clear text is so little work that a clock, a histogram and a dozen counters show, and a proxy
# counts routes, tenants, origins and phases beside what its server counts.
WAYS = (("h1", "HTTP/1.1", 2.0), ("h1-tls", "HTTP/1.1 over TLS", 1.0), ("h3", "HTTP/3", 1.5),
        ("proxied-h1", "proxy, HTTP/1.1", 3.0), ("proxied-h1-tls", "proxy, HTTP/1.1 over TLS", 2.0), ("proxied-h3", "proxy, HTTP/3", 2.5))


def instructions(build, folder, way, counted, requests):
    """Of the server's loop, for each request."""
    out = Path(folder) / f"{way}.{counted}"
    subprocess.run(["valgrind", "-q", "--tool=callgrind", "--collect-atstart=no", f"--callgrind-out-file={out}", build / "tests/bench/telemetry_cost", way, counted,
                    str(requests), *(f"{folder}/ca/{name}" for name in ("localhost.pem", "localhost-key.pem", "ca.pem"))], check=True)
    return int(re.search(r"^totals: (\d+)", out.read_text(), re.M)[1]) / requests


def cost_of_counting(build, rounds, requests):
    print(f"\n| server | instructions a request | with a registry | more | the goal of {GOAL:g} % |\n|---|---|---|---|---|")
    over = []
    with tempfile.TemporaryDirectory(prefix="cb-bench-telemetry-") as folder:
        subprocess.run([build / "cbctl", "ca", "dev", "--dir", f"{folder}/ca", "localhost"], check=True, capture_output=True)
        for way, name, most in WAYS:
            off, on = (statistics.median(instructions(build, folder, way, counted, requests) for _ in range(rounds)) for counted in ("off", "on"))
            more = 100 * (on - off) / off
            if more > most:
                over.append(f"{name}: {more:.2f} %, {most} % is the most")
            print(f"| {name} | {off:,.0f} | {on:,.0f} | {more:.2f} % | {'met' if more <= GOAL else 'missed'} |")
    if over:
        raise SystemExit("counting costs too much of a request: " + "; ".join(over))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--series", type=int, default=5000)
    parser.add_argument("--requests", type=int, default=4000)
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
    cost_of_counting(args.build, min(args.rounds, 5), args.requests)


if __name__ == "__main__":
    main()
