"""A forwarding plane for one PoP of pop.py, made of forwarder.c: each step can be held back, so that hosts are versions of the table apart.

    plane = Plane(w, 1)                        # before w.serve(): the edges get server IDs in their connection IDs
    w.serve()
    plane.begin(["s11", "s12"])                # all servers forward; these two have buckets
    plane.member("s13"); plane.settle()        # one more, and everything has moved
    plane.hold("s11"); plane.member("s12", state="draining"); ...; plane.release("s11")
    print(plane.counts("s11")["second_hop"])

cb-edge has a forwarding plane of its own (`forwarding` in its configuration); this one is for what it cannot be told.
"""

import os
import queue
import subprocess
import threading
import time

from pop import VIP4, VIP6, build_program
from world import wait_for


class Plane:
    def __init__(self, world, pop, moves_per_step=0, ack_ms=2000, hop_rate=0, encapsulation="gue", underlay=4, reports=True):
        self.world = world
        self.servers = {s.name: s for s in world.servers.values() if s.pop == pop}
        self.ids = {name: i for i, name in enumerate(sorted(self.servers), 1)}
        self.names = {i: name for name, i in self.ids.items()}
        self.moves, self.ack_ms, self.hop_rate = moves_per_step, ack_ms, hop_rate
        self.encapsulation, self.underlay = encapsulation, underlay
        self.reports = reports  # False: nobody says that nothing of his lives in a bucket any more, so what has moved keeps two owners
        self.hosts, self.said, self.held, self.applied = {}, {}, {}, {}
        self.records, self.state, self.failures = [], None, []
        self.lock = threading.RLock()
        self.hash_key, self.tag_key = os.urandom(16).hex(), os.urandom(16).hex()
        self.writer, self.ending = None, threading.Event()
        plain = world.edge_config

        def with_ids(server, config):
            if server.name in self.ids:
                config["quic_lb"] = {"server_id": self.server_id(server.name), "rotation": 0}
            plain(server, config)

        world.edge_config = with_ids
        world.closers.append(self.close)

    def server_id(self, name):
        return f"{self.ids[name]:08x}"

    # ---- processes ----
    def _open(self, command, heard):
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        first = process.stdout.readline()
        assert first == "forwarder ready\n", f"{command}: {first or 'it ended'}"
        # What we tell it waits in a queue: were both pipes full, we and it would wait for each other.
        process.queue = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(process, heard), daemon=True).start()
        threading.Thread(target=self._write, args=(process,), daemon=True).start()
        return process

    def _listen(self, process, heard):
        for line in process.stdout:
            with self.lock:
                heard(line.split())

    @staticmethod
    def _write(process):
        try:
            while (text := process.queue.get()) is not None:
                process.stdin.write(text + "\n")
                process.stdin.flush()
            process.stdin.close()
        except (OSError, ValueError):
            pass  # it died, as hosts do

    @staticmethod
    def _tell(process, text):
        process.queue.put(text)

    def start_host(self, name):
        """The forwarding of one server begins, with all that was decided so far; or goes on, where its process had ended and left it in the kernel."""
        server = self.servers[name]
        process = self._open(server.host.inside(build_program("forwarder", self.world.tree), "host", self.ids[name], self.hash_key, self.tag_key, "eth0", server.v4, server.v6,
                                                 self.world.bpffs() / name, self.hop_rate),
                             lambda words: self._from_host(name, words))
        for other, s in self.servers.items():
            self._tell(process, f"member {self.ids[other]} {s.v4 if self.underlay == 4 else s.v6} {self.encapsulation}")
            self._tell(process, f"server {self.ids[other]} {self.server_id(other)}")
        for vip in (VIP4, VIP6):
            self._tell(process, f"vip {vip}")
        with self.lock:
            self.applied[name] = 0
            for record in self.records:
                self._tell(process, f"record {record}")
            self._tell(process, "begin")
            self.hosts[name] = process
        wait_for(lambda: self.counts(name)["unresolved"] == 0, 10, lambda: f"{name} does not find the way to all others: {self.failures}")

    def stop_host(self, name):
        """The process of a server's forwarding ends. What it put into the kernel goes on, with the table that it had."""
        process = self.hosts.pop(name)
        self._tell(process, None)
        process.wait(10)

    def crash_host(self, name):
        process = self.hosts.pop(name)
        process.kill()
        process.wait(10)

    def begin(self, names, weights=None):
        self.writer = self._open([build_program("forwarder", self.world.tree), "writer", self.moves, self.ack_ms], self._from_writer)
        for name in self.servers:
            if self.servers[name].up or name in names:
                self.start_host(name)
        for name in names:
            self.member(name, (weights or {}).get(name, 100))
        self.settle()
        if self.reports:
            threading.Thread(target=self._look, daemon=True).start()
        return self

    def close(self):
        self.ending.set()
        for process in [*self.hosts.values(), *([self.writer] if self.writer else [])]:
            try:
                self._tell(process, None)
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # ---- what they say ----
    def _from_writer(self, words):
        if words[0] == "record":
            self.records.append(words[1])
            for name, process in self.hosts.items():
                if name in self.held:
                    self.held[name].append(words[1])
                else:
                    self._tell(process, f"record {words[1]}")
        elif words[0] == "state":
            self.state = (int(words[1]), int(words[2]))
        else:
            self.failures.append(" ".join(words))

    def _from_host(self, name, words):
        if words[0] == "applied":
            self.applied[name] = int(words[2])
            self._tell(self.writer, f"ack {words[1]} {words[2]}")
        elif words[0] == "idle":
            self._tell(self.writer, f"idle {words[1]} {words[2]}")
        elif words[0] == "counts":
            self.said[name] = {key: int(value) for key, value in (pair.split("=") for pair in words[2:])}
        elif words[0] != "looked":
            self.failures.append(f"{name}: {' '.join(words)}")

    def _look(self):
        """Hosts say once a second in which buckets nothing of theirs lives any more."""
        while not self.ending.wait(1):
            for process in list(self.hosts.values()):
                self._tell(process, "idle")

    # ---- what is decided ----
    def member(self, name, weight=100, state="up"):
        with self.lock:
            self.state = None
        self._tell(self.writer, f"member {self.ids[name]} {weight} {state}")

    def hold(self, name):
        """Records do not reach this host until release()."""
        with self.lock:
            self.held.setdefault(name, [])

    def release(self, name):
        with self.lock:
            for record in self.held.pop(name):
                self._tell(self.hosts[name], f"record {record}")

    def kill(self, name):
        """Power off, as the world has it, and the writer finds out."""
        self.world.kill(name)
        with self.lock:
            process = self.hosts.pop(name, None)
        if process:
            process.wait(10)
        self.member(name, state="dead")

    def settle(self, seconds=30):
        """Waits until the writer has had nothing to write for a second, and all hosts that are not held have all records. Buckets in which connections of their
        former owner live are not moved again, so some may be left waiting."""
        def quiet():
            n = len(self.records)
            time.sleep(1)
            return n == len(self.records)
        wait_for(quiet, seconds, lambda: f"still moving: {self.state}, {self.failures}")
        wait_for(lambda: all(v >= len(self.records) for n, v in self.applied.items() if n in self.hosts and n not in self.held), seconds,
                 lambda: f"not applied: {self.applied} of {len(self.records)}, {self.failures}")
        assert not self.failures, self.failures

    def counts(self, name):
        """What became of packets on this host, by name."""
        self.said.pop(name, None)
        self._tell(self.hosts[name], "counts")
        return wait_for(lambda: self.said.get(name), 10, f"{name} does not answer")
