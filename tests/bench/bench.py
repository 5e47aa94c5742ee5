"""What a request costs: our server and our proxy beside well-known ones, in one run.

    scripts/bench http [--rounds N] [--quick] [--only ROW]...

Every row alternates the candidates within each round and prints medians over the rounds. The server under test has processor 0, the load
generator (and, for proxies, the origin) processor 1. Cost is the processor time of all of the server's threads by the scheduler's own
clock (/proc/PID/task/*/schedstat), divided by the requests or bytes that arrived: it does not depend on how busy the machine is, as wall
time would. Everything runs in a network namespace of its own with an MTU of 1500 on its loopback (needs root; without it the machine's
loopback is used, and the table says so). TCP congestion control is set to cubic.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SERVER_CPU, LOAD_CPU = "0", "1"
PORT, TLS_PORT, ORIGIN_PORT = 8080, 8443, 8081
IDLE_S = 7  # since the last answer, when memory of idle connections is read


class Missing(Exception):
    """A peer that is not installed."""


def find(name):
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        raise Missing(f"{name} is not installed")
    return path


# ---- processes ------------------------------------------------------------------------------------------------------------
class Server:
    """A server under test, with all its children."""

    def __init__(self, command, log, ready=None, cpu=SERVER_CPU, udp=False):
        self.log = log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(["taskset", "-c", cpu, *map(str, command)], stdout=out, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL)
        if udp:
            time.sleep(0.5)
        else:
            self.wait_tcp(ready)

    def wait_tcp(self, port):
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{self.process.args} does not listen on {port}:\n{Path(self.log).read_text()}")
                time.sleep(0.02)

    def pids(self):
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    queue.extend(int(child) for child in (task / "children").read_text().split())
        return found

    def cpu_ns(self):
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total

    def pss_kib(self):
        total = 0
        for pid in self.pids():
            match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
            total += int(match[1])
        return total

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def load(*command, timeout=120):
    """Runs a load generator on its processor; returns its output."""
    done = subprocess.run(["taskset", "-c", LOAD_CPU, *map(str, command)], capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


# ---- what is measured -----------------------------------------------------------------------------------------------------
class Bench:
    def __init__(self, build, folder, quick):
        self.build, self.folder, self.quick = build, Path(folder), quick
        self.docroot = self.folder / "www"
        self.docroot.mkdir()
        (self.docroot / "1k").write_bytes(b"x" * 1024)
        (self.docroot / "1m").write_bytes(b"x" * (1 << 20))
        (self.docroot / "100m").write_bytes(b"x" * (100 << 20))
        self.bulk_mib = 64 if quick else 256
        with open(self.docroot / "bulk", "wb") as f:
            f.truncate(self.bulk_mib << 20)
        subprocess.run([self.own("cbctl"), "ca", "dev", "--dir", self.folder / "ca", "localhost", "127.0.0.1"], check=True,
                       capture_output=True)
        self.ca, self.cert, self.key = (self.folder / "ca" / name for name in ("ca.pem", "localhost.pem", "localhost-key.pem"))
        self.serial = 0

    def own(self, name):
        for path in sorted(self.build.rglob(name)):
            if path.is_file() and os.access(path, os.X_OK):
                return path
        raise SystemExit(f"{name} is not in {self.build}: scripts/bench builds it first")

    def log(self):
        self.serial += 1
        return self.folder / f"log-{self.serial}"

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    # --- servers ---
    def h3_ours(self):
        return Server([self.own("bench_server"), f"127.0.0.1:{TLS_PORT}", self.cert, self.key, self.bulk_mib], self.log(), udp=True)

    def h3_gtlsserver(self, cpu=SERVER_CPU):
        return Server([find("gtlsserver"), "-q", "--no-quic-dump", "--no-http-dump", "-d", self.docroot, "127.0.0.1", TLS_PORT, self.key,
                       self.cert], self.log(), udp=True, cpu=cpu)

    def origin(self):
        conf = self.write("origin.conf", f"""
worker_processes 1; daemon off; pid {self.folder}/origin.pid; error_log {self.folder}/origin.err;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; server {{ listen 127.0.0.1:{ORIGIN_PORT}; root {self.docroot}; }} }}
""")
        return Server([find("nginx"), "-c", conf], self.log(), ready=ORIGIN_PORT, cpu=LOAD_CPU)

    def proxy_nginx(self):
        conf = self.write("proxy.conf", f"""
worker_processes 1; daemon off; pid {self.folder}/proxy.pid; error_log {self.folder}/proxy.err;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s;
  upstream origin {{ server 127.0.0.1:{ORIGIN_PORT}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{PORT}; listen 127.0.0.1:{TLS_PORT} ssl http2;
    ssl_certificate {self.cert}; ssl_certificate_key {self.key}; ssl_protocols TLSv1.3;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
        return Server([find("nginx"), "-c", conf], self.log(), ready=PORT)

    def proxy_haproxy(self):
        pem = self.write("haproxy.pem", self.cert.read_text() + self.key.read_text())
        conf = self.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn 24000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{PORT}
  bind 127.0.0.1:{TLS_PORT} ssl crt {pem} alpn h2,http/1.1 ssl-min-ver TLSv1.3
  default_backend b
backend b
  server s 127.0.0.1:{ORIGIN_PORT}
""")
        return Server([find("haproxy"), "-f", conf, "-db"], self.log(), ready=PORT)

    def proxy_ours(self):
        conf = self.write("edge.json", json.dumps(edge_config(self), indent=1))
        return Server([self.own("cb-edge"), "--config", conf], self.log(), ready=PORT)

    # --- loads: (units done, seconds) ---
    def h3load_small(self):
        n = 8000 if self.quick else 40000
        got = json.loads(load(self.own("h3load"), "-3", "-n", n, "-c", 8, "-m", 32, "--ca", self.ca, f"https://localhost:{TLS_PORT}/1k"))
        return got["requests"], got

    def h3load_bulk(self):
        got = json.loads(load(self.own("h3load"), "-3", "-n", 1, "-c", 1, "-m", 1, "--ca", self.ca, f"https://localhost:{TLS_PORT}/bulk"))
        assert got["bytes"] == self.bulk_mib << 20, got
        return self.bulk_mib / 1024, got

    def handshakes(self):
        """As many connections at once as bring no Retry; each asks for one small answer and does not resume."""
        n = 50 if self.quick else 200
        for _ in range(1 if self.quick else 4):
            load(self.own("h3load"), "-3", "-n", n, "-c", n, "-m", 1, "--ca", self.ca, f"https://localhost:{TLS_PORT}/1k")
        return n * (1 if self.quick else 4), {}

    def download_ours(self):
        return [self.own("h3load"), "-3", "-n", 1, "-c", 1, "-m", 1, "--ca", self.ca, f"https://localhost:{TLS_PORT}/bulk"]

    def download_gtlsclient(self):
        return [find("gtlsclient"), "-q", "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", "127.0.0.1", TLS_PORT,
                f"https://localhost:{TLS_PORT}/bulk"]

    def wrk(self, url):
        seconds = 2 if self.quick else 4
        out = load(find("wrk"), "-t1", "-c32", f"-d{seconds}s", "--latency", url)
        if re.search(r"Non-2xx|Socket errors", out):
            raise SystemExit(f"wrk saw failures:\n{out}")
        return int(re.search(r"(\d+) requests in", out)[1]), {"p99_ms": to_ms(re.search(r"^\s+99%\s+(\S+)", out, re.M)[1])}

    def wrk_bytes(self, url, connections):
        """The same for large bodies: GiB that arrived."""
        seconds = 2 if self.quick else 4
        out = load(find("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", url)
        if re.search(r"Non-2xx|Socket errors: (?!connect 0, read 0, write 0)", out):
            raise SystemExit(f"wrk saw failures:\n{out}")
        number, unit = re.search(r"requests in [\d.]+m?s, ([\d.]+)([MG])B read", out).groups()
        return float(number) / (1024 if unit == "M" else 1), {}

    def h2load(self, url):
        n = 10000 if self.quick else 60000
        out = load(find("h2load"), "-n", n, "-c", 8, "-m", 32, url)
        if int(re.search(r"(\d+) succeeded", out)[1]) != n:
            raise SystemExit(f"h2load saw failures:\n{out}")
        return n, {}

    # --- rows ---
    def cost(self, candidates, work, rounds, with_origin):
        """CPU per unit for each candidate, alternating; {name: [ns per unit]}"""
        results = {name: [] for name, _ in candidates}
        for _ in range(rounds):
            for name, start in candidates:
                origin, server = self.origin() if with_origin else None, None
                try:
                    server = start()
                    work()  # warm-up: connections to the origin, caches
                    before = server.cpu_ns()
                    units, _ = work()
                    results[name].append((server.cpu_ns() - before) / units)
                finally:
                    for process in (server, origin):
                        if process:
                            process.stop()
        return results

    def client_cost(self, candidates, rounds):
        """CPU of a client that downloads the bulk file from gtlsserver, whole process, per GiB: the clients have the server's processor here."""
        results = {name: [] for name, _ in candidates}
        for _ in range(rounds):
            server = self.h3_gtlsserver(cpu=LOAD_CPU)
            try:
                for name, command in candidates:
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    done = subprocess.run(["taskset", "-c", SERVER_CPU, *map(str, command())], capture_output=True, text=True, timeout=120)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    if done.returncode != 0:
                        raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
                    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    results[name].append(used * 1e9 / (self.bulk_mib / 1024))
            finally:
                server.stop()
        return results

    @contextlib.contextmanager
    def held(self, n, version, url):
        """`n` connections that have asked once, from a process of their own."""
        command = ["taskset", "-c", LOAD_CPU, self.own("hold"), "-n", n, version, "--ca", self.ca, "--to", f"127.0.0.1:{PORT if url.startswith('http:') else TLS_PORT}", url]
        process = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if process.stdout.readline() != f"held {n}\n":
                raise SystemExit(f"{' '.join(map(str, command))} did not get its connections")
            yield
            if process.poll() is not None:
                raise SystemExit("the holder of the connections has ended")
        finally:
            process.stdin.close()
            process.wait()

    def idle(self, candidates, version, url, n, rounds, with_origin=True):
        """PSS growth per idle connection in KiB."""
        results = {name: [] for name, _ in candidates}
        for _ in range(rounds):
            for name, start in candidates:
                origin, server = self.origin() if with_origin else None, None
                try:
                    server = start()
                    with self.held(50, version, url):  # what the first connections allocate for all
                        time.sleep(0.3)
                        before = server.pss_kib()
                        with self.held(n, version, url):
                            time.sleep(IDLE_S)
                            results[name].append((server.pss_kib() - before) / n)
                finally:
                    for process in (server, origin):
                        if process:
                            process.stop()
        return results


def to_ms(text):
    number, unit = re.match(r"([\d.]+)(\w+)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def edge_config(bench):
    certificate = {"cert_file": str(bench.cert), "key_file": str(bench.key)}
    return {
        "workers": 1,
        "listeners": {
            "clear": {"address": f"127.0.0.1:{PORT}", "max_connections": 100000},
            "secure": {"address": f"127.0.0.1:{TLS_PORT}", "tls": {"certificates": [certificate]}},
        },
        "groups": {"origin": {"origins": [{"url": f"http://127.0.0.1:{ORIGIN_PORT}"}], "max_idle": 256}},
        "routes": [{"group": "origin"}],
        "limits": {"max_requests": 100000000, "idle_timeout_ms": 300000},
        "log": {"levels": "warn"},
    }


def rows(bench, rounds, only):
    """Yields (title, unit, scale, {name: values})."""
    h3 = [("libcb", bench.h3_ours), ("gtlsserver", bench.h3_gtlsserver)]
    proxies = [("cb-edge", bench.proxy_ours), ("nginx", bench.proxy_nginx), ("haproxy", bench.proxy_haproxy)]
    tls_url, clear_url = f"https://localhost:{TLS_PORT}/1k", f"http://127.0.0.1:{PORT}/1k"
    n_idle = 500 if bench.quick else 10000
    table = [
        ("h3-small", "HTTP/3 server, 1 KiB, 8 connections x 32 streams", "us CPU/request", 1e-3, lambda: bench.cost(h3, bench.h3load_small, rounds, False)),
        ("h3-bulk", f"HTTP/3 server, one {bench.bulk_mib} MiB download", "s CPU/GiB", 1e-9, lambda: bench.cost(h3, bench.h3load_bulk, rounds, False)),
        ("h3-client", f"HTTP/3 client, one {bench.bulk_mib} MiB download", "s CPU/GiB", 1e-9,
         lambda: bench.client_cost([("libcb", bench.download_ours), ("gtlsclient", bench.download_gtlsclient)], rounds)),
        ("h3-handshake", "HTTP/3 server, handshakes, ECDSA P-256, 200 at once", "us CPU/handshake", 1e-3,
         lambda: bench.cost(h3, bench.handshakes, rounds, False)),
        ("proxy-h1", "proxy, HTTP/1.1 clear, 1 KiB, 32 connections", "us CPU/request", 1e-3,
         lambda: bench.cost(proxies, lambda: bench.wrk(clear_url), rounds, True)),
        ("proxy-h1-1m", "proxy, HTTP/1.1 clear, 1 MiB, 8 connections", "s CPU/GiB", 1e-9,
         lambda: bench.cost(proxies, lambda: bench.wrk_bytes(clear_url[:-2] + "1m", 8), rounds, True)),
        ("proxy-h1-large", "proxy, HTTP/1.1 clear, 100 MiB, 2 connections", "s CPU/GiB", 1e-9,
         lambda: bench.cost(proxies, lambda: bench.wrk_bytes(clear_url[:-2] + "100m", 2), rounds, True)),
        ("proxy-h1-tls", "proxy, HTTP/1.1 + TLS 1.3, 1 KiB, 32 connections", "us CPU/request", 1e-3,
         lambda: bench.cost(proxies, lambda: bench.wrk(tls_url), rounds, True)),
        ("proxy-h2-tls", "proxy, HTTP/2 + TLS 1.3, 1 KiB, 8 x 32", "us CPU/request", 1e-3,
         lambda: bench.cost(proxies, lambda: bench.h2load(tls_url), rounds, True)),
        ("proxy-h3", "proxy, HTTP/3, 1 KiB, 8 x 32", "us CPU/request", 1e-3,
         lambda: bench.cost(proxies[:1], bench.h3load_small, rounds, True)),
        ("idle-h1", f"memory of an idle HTTP/1.1 connection, {n_idle:,} of them", "KiB PSS", 1, lambda: bench.idle(proxies, "-1", clear_url, n_idle, rounds)),
        ("idle-h1-tls", f"the same with TLS 1.3, {n_idle:,}", "KiB PSS", 1, lambda: bench.idle(proxies, "-1", tls_url, n_idle, rounds)),
        ("idle-h2-tls", f"idle HTTP/2 + TLS 1.3, {n_idle:,}", "KiB PSS", 1, lambda: bench.idle(proxies, "-2", tls_url, n_idle, rounds)),
        ("idle-h3", f"idle HTTP/3, {n_idle:,}", "KiB PSS", 1,
         lambda: bench.idle([("cb-edge", bench.proxy_ours), ("gtlsserver", bench.h3_gtlsserver)], "-3", tls_url, n_idle, rounds)),
    ]
    for name, title, unit, scale, measure in table:
        if only and name not in only:
            continue
        print(f"... {name}", file=sys.stderr, flush=True)
        try:
            yield name, title, unit, scale, measure()
        except Missing as missing:
            print(f"skipped {name}: {missing}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench http", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=TOP / "build/release")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small loads: to see that it runs, not to quote")
    parser.add_argument("--only", action="append", help="a row's name; may be given several times")
    args = parser.parse_args()
    if os.environ.get("CB_BENCH_NETNS") != "1" and os.geteuid() == 0:
        return in_namespace()
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text("cubic")
    resource_limit()
    lo = subprocess.run(["ip", "-o", "link", "show", "lo"], capture_output=True, text=True).stdout
    mtu = re.search(r"mtu (\d+)", lo)
    print(f"Machine: {os.cpu_count()} processors, {cpu_name()}, Linux {platform.release()}; loopback MTU {mtu[1] if mtu else 'unknown'}; "
          f"{args.rounds} rounds{', quick' if args.quick else ''}; median (min-max).\n")
    with tempfile.TemporaryDirectory(prefix="cb-bench-") as folder:
        os.chmod(folder, 0o755)
        bench = Bench(args.build, folder, args.quick)
        print("| row | what | unit | " + "result | ratio to ours |\n|---|---|---|---|---|")
        for name, title, unit, scale, results in rows(bench, args.rounds, args.only):
            ours = None
            for who, values in results.items():
                values = [v * scale for v in values]
                middle = statistics.median(values)
                ours = ours or middle
                print(f"| {name} | {title} | {unit} | {who}: {middle:.2f} ({min(values):.2f}-{max(values):.2f}) | {middle / ours:.2f} |", flush=True)
    return 0


def in_namespace():
    """Runs this again in a network namespace of its own whose loopback has the MTU of Ethernet."""
    name = f"cb-bench-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up", "mtu", "1500"], check=True)
        return subprocess.run([*inside, sys.executable, __file__, *sys.argv[1:]], env={**os.environ, "CB_BENCH_NETNS": "1"}).returncode
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def resource_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (max(hard, 65536), hard):  # above the hard limit: not everybody's right
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            break
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 12000:
        print("the limit of open files is too low for 10,000 idle connections", file=sys.stderr)


def cpu_name():
    match = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else "unknown processor"


if __name__ == "__main__":
    sys.exit(main())
