"""cb-edge's administration: how long a change takes, and what a thousand reloads do.

    scripts/bench admin [--changes N] [--reloads N] [--groups N] [--workers N] [--folder FOLDER]

A change is a PUT of one member over the unix socket on a kept connection, with the revision written and synced to a file of SQLite in FOLDER
(default: the build folder) before the workers take over. Its time is from the first byte sent to the answer, which comes when the audit record is synced as well and all workers run it;
what the disk alone takes for a synced write beside it is measured in the same folder. Reloads alternate PUTs and SIGHUPs while clients ask for
pages over HTTP/1.1; a request that is not answered with 200 counts as failed. The memory of the process is sampled after each.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
from unix_http import Connection, ask  # noqa: E402


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Origin(threading.Thread):
    """Answers each request on a kept connection with two bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.server.getsockname()[1]

    def run(self):
        while True:
            s, _ = self.server.accept()
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        data = b""
        try:
            while more := s.recv(65536):
                data += more
                while b"\r\n\r\n" in data:
                    data = data.partition(b"\r\n\r\n")[2]
                    s.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except OSError:
            pass


class Client(threading.Thread):
    """A page again and again, with a pause: what counts is what fails, not how many."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.good, self.bad, self.stop = port, 0, [], False

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        used = 0
        while not self.stop:
            try:
                connection.request("GET", "/")
                got = connection.getresponse()
                got.read()
                used += 1
                if got.status == 200:
                    self.good += 1
                else:
                    self.bad.append(str(got.status))
            except (http.client.HTTPException, OSError) as e:
                connection.close()
                if not used:  # a kept connection may end between two requests; any client asks again
                    self.bad.append(repr(e))
                used = 0
            time.sleep(0.002)


def configuration(args, port, origin, folder):
    groups = {f"g{i}": {"origins": [{"url": f"http://127.0.0.1:{origin}"}]} for i in range(args.groups)}
    routes = [{"path": f"/g{i}", "group": f"g{i}"} for i in range(1, args.groups)] + [{"group": "g0"}]
    return {"workers": args.workers, "listeners": {"web": {"address": f"127.0.0.1:{port}"}}, "groups": groups, "routes": routes,
            "admin": {"socket": str(folder / "s"), "state_dir": str(folder / "state"), "roles": [{"who": f"uid:{os.getuid()}", "role": "admin"}]}}


def start(args, folder, document):
    file, log = folder / "edge.json", open(folder / "log", "wb")
    file.write_text(json.dumps(document, indent=1))
    process = subprocess.Popen([args.build / "cb-edge", "-c", file], stdout=log, stderr=log)
    end = time.monotonic() + 20
    while not (folder / "s").exists():
        if process.poll() is not None or time.monotonic() > end:
            sys.exit((folder / "log").read_text())
        time.sleep(0.02)
    return process


def rss_kib(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def synced_writes(folder, n):
    """What the disk takes for a write of 4 KiB with fdatasync(), in ms."""
    fd, times = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY, 0o600), []
    for i in range(n):
        begin = time.perf_counter()
        os.pwrite(fd, b"x" * 4096, 4096 * (i % 64))
        os.fdatasync(fd)
        times.append((time.perf_counter() - begin) * 1000)
    os.close(fd)
    return times


def put(connection, target, value):
    begin = time.perf_counter()
    got = ask(None, "PUT", "/v1/config" + target, value, connection=connection)
    assert got.status == 200 and got.json()["changed"], got
    return (time.perf_counter() - begin) * 1000


def row(name, times):
    times = sorted(times)
    print(f"| `{name}` | {len(times):,} | {statistics.median(times):.2f} | {times[int(len(times) * 0.99)]:.2f} | {times[-1]:.2f} |")


def measure_changes(args, folder, process):
    connection = Connection(folder / "s")
    for i in range(50):
        put(connection, "/drain_timeout_ms", 1000 + i)
    times = [put(connection, "/drain_timeout_ms", 2000 + i) for i in range(args.changes)]
    checks = []
    for i in range(args.changes):
        begin = time.perf_counter()
        got = ask(None, "PUT", "/v1/config/drain_timeout_ms?dry_run=true", i, connection=connection)
        checks.append((time.perf_counter() - begin) * 1000)
        assert got.status == 200, got
    print("| row | changes | p50, ms | p99, ms | longest, ms |\n|---|---|---|---|---|")
    row("put", times)
    row("dry run", checks)
    row("fdatasync", synced_writes(folder, args.changes))


def measure_reloads(args, folder, process, port):
    clients = [Client(port) for _ in range(4)]
    connection, sizes, begin = Connection(folder / "s"), [], time.monotonic()
    for c in clients:
        c.start()
    for i in range(args.reloads // 2):
        put(connection, "/groups/g0/retries", i % 10)
        reloaded = (folder / "log").read_text().count("reloaded ")
        process.send_signal(signal.SIGHUP)
        while (folder / "log").read_text().count("reloaded ") == reloaded:
            time.sleep(0.001)
        sizes.append(rss_kib(process.pid))
    took = time.monotonic() - begin
    for c in clients:
        c.stop = True
    for c in clients:
        c.join()
    bad = sum((c.bad for c in clients), [])
    tenth = max(1, len(sizes) // 10)
    print("\n| row | reloads | seconds | requests | failed | memory after a tenth, MiB | at the end, MiB |\n|---|---|---|---|---|---|---|")
    print(f"| `reloads` | {len(sizes) * 2:,} | {took:.1f} | {sum(c.good for c in clients):,} | {len(bad)} | {sizes[tenth - 1] / 1024:.1f} | {sizes[-1] / 1024:.1f} |")
    if bad:
        print("\nFailed:", *bad[:5])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--changes", type=int, default=2000)
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    args.build = args.build.resolve()
    folder = Path(tempfile.mkdtemp(dir=args.folder or args.build))
    origin, port = Origin(), free_port()
    origin.start()
    process = start(args, folder, configuration(args, port, origin.port, folder))
    try:
        measure_changes(args, folder, process)
        measure_reloads(args, folder, process, port)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
