"""What it costs that a server's private key is on a PKCS#11 token: SoftHSM beside a key in a file, in turns.

    scripts/bench token [--rounds N] [--seconds N]

Clients (openssl s_time -new, several at a time) make one connection after another with full TLS 1.3 handshakes, ECDSA on P-256. Meanwhile one
connection that exists asks for a kilobyte over and over: its latency tells how long the server's loop was busy with something else, and the
scheduler, which gives processor 1 to the clients as well. Processor time is that of all of the server's threads, and does not depend on that.
The server has processor 0, the clients processor 1. SoftHSM signs on processor 0, too, as a token of its own would not.
"""

import argparse
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIN = "2468"
CLIENTS = 8
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")


def run(*command, env=None, **kw):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, env=env, **kw).stdout


def make_keys(build, folder):
    """An authority, the same kind of certificate for a key in a file and for one on a token; the environment of the token."""
    cbctl = build / "cbctl"
    (folder / "tokens").mkdir()
    (folder / "softhsm.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    pin = folder / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    env = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm.conf"), "GNUTLS_PIN": PIN}
    module = next(path for path in MODULES if os.path.exists(path))
    run("softhsm2-util", "--init-token", "--free", "--label", "bench", "--pin", PIN, "--so-pin", "1357", env=env)
    run("pkcs11-tool", "--module", module, "--token-label", "bench", "--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1",
        "--label", "key", "--id", "01", env=env)
    run(cbctl, "ca", "init", "--dir", folder / "ca", "--key-type", "ecdsa-p256")
    run(cbctl, "ca", "issue", "--dir", folder / "ca", "--out", "file", "localhost", "127.0.0.1")
    url = "pkcs11:token=bench;object=key;type=private"
    (folder / "template").write_text("cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\n")
    run("certtool", "--generate-request", "--load-privkey", url, "--load-pubkey", url.replace("private", "public"), "--template", folder / "template",
        "--outfile", folder / "request.pem", env=env)
    (folder / "token.pem").write_text(run(cbctl, "ca", "sign", "--dir", folder / "ca", "--name", "localhost", "--name", "127.0.0.1", folder / "request.pem"))
    env.pop("GNUTLS_PIN")
    return {"file": (folder / "ca/file.pem", folder / "ca/file-key.pem"), "token": (folder / "token.pem", f"{url}?pin-source=file:{pin}")}, env


def threads_cpu(pid):
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


class Asker:
    """One connection over HTTP/1.1 that asks again and again."""

    def __init__(self, port, root):
        context = ssl.create_default_context(cafile=root)
        self.tls = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        self.tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self):
        begin = time.monotonic()
        self.tls.sendall(b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = b""
        while b"\r\n\r\n" not in got or len(got) - got.index(b"\r\n\r\n") - 4 < 1024:
            got += self.tls.recv(65536)
        return time.monotonic() - begin


def measure(build, pair, env, root, seconds, port, clients):
    server = subprocess.Popen(["taskset", "-c", "0", build / "tests/bench/bench_server", f"127.0.0.1:{port}", *map(str, pair), "1"], env=env)
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.01)
        asker = Asker(port, root)
        asker.ask()
        before, begin = threads_cpu(server.pid), time.monotonic()
        load = [subprocess.Popen(["taskset", "-c", "1", "openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-time", str(seconds)],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(clients)]
        os.sched_setaffinity(0, {1})
        waits = []
        while time.monotonic() - begin < seconds:
            waits.append(asker.ask())
            time.sleep(0.002)
        done = 0
        for one in load:  # "N connections in 1.23s; ..." and then "N connections in 3 real seconds, ..."
            done += int(next(line for line in one.communicate()[0].splitlines() if "real seconds" in line).split()[0])
        spent = threads_cpu(server.pid) - before
        return done, spent / done * 1e6 if done else 0, waits
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    args = parser.parse_args()
    for tool in ("softhsm2-util", "pkcs11-tool", "certtool", "openssl", "taskset"):
        if not shutil.which(tool):
            sys.exit(f"scripts/bench token: {tool} is not installed")
    results = {}
    with tempfile.TemporaryDirectory(prefix="cb-bench-token-") as name:
        folder, build = Path(name), args.build.resolve()
        pairs, env = make_keys(build, folder)
        for turn in range(args.rounds):
            for number, (row, clients) in enumerate((("file", 0), ("file", CLIENTS), ("token", CLIENTS))):
                got = measure(build, pairs[row], env, folder / "ca/root.pem", args.seconds, 18440 + 10 * turn + number, clients)
                results.setdefault((row, clients), []).append(got)
    print("| key | processor time of a handshake | a second and core | p50 of a request beside them | p99 |\n|---|---|---|---|---|")
    for (row, clients), got in results.items():
        costs, waits = [one[1] for one in got], sorted(wait for one in got for wait in one[2])
        p50, p99 = (waits[int(len(waits) * share)] * 1e3 for share in (0.5, 0.99))
        what = {"file": "in a file", "token": "SoftHSM"}[row] if clients else "no handshakes"
        cost = f"{statistics.median(costs):,.0f} us ({min(costs):,.0f}-{max(costs):,.0f})" if clients else "-"
        rate = f"{1e6 / statistics.median(costs):,.0f}" if clients else "-"
        print(f"| {what} | {cost} | {rate} | {p50:.2f} ms | {p99:.2f} ms |")


if __name__ == "__main__":
    main()
