"""A UDP relay between a client and a server on loopback, with what a network may do: delay, loss, corruption, silence, a NAT that
rebinds. It keeps ECN marks, and counts what a capture would show."""

import heapq
import ipaddress
import select
import socket
import threading
import time

V2 = 0x6B3343CF
UP, DOWN = "up", "down"


def kind(data):
    """"initial", "0rtt", "handshake", "retry", "vn" or "short"."""
    if not data[0] & 0x80:
        return "short"
    version = int.from_bytes(data[1:5], "big")
    if version == 0:
        return "vn"
    number = data[0] >> 4 & 3
    return ("initial", "0rtt", "handshake", "retry")[(number + 3) & 3 if version == V2 else number]


class Relay:
    """judge(way, number, data) returns the bytes to pass on, or None for a loss; numbers count from 1 in each way."""

    def __init__(self, target_port, host="127.0.0.1", delay=0.0, judge=None):
        self.target, self.delay, self.judge = (host, target_port), delay, judge
        self.family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        self.front, self.host, self.back, self.client = self._socket(host), host, self._socket(host), None
        self.port = self.front.getsockname()[1]
        self.kinds = {UP: [], DOWN: []}   # of the packets that were passed on
        self.bytes = {UP: 0, DOWN: 0}
        self.marks = {UP: set(), DOWN: set()}
        self.came = {UP: 0, DOWN: 0}
        self._late, self._stop, self._n, self._lock = [], False, 0, threading.RLock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _socket(self, host):
        s = socket.socket(self.family, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if self.family == socket.AF_INET:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        s.bind((host, 0))
        return s

    def rebind(self, host=None):
        """The server sees another port, or another address, from now on; packets to the old one are lost."""
        with self._lock:
            old, self.back = self.back, self._socket(host or self.host)
            old.close()

    def _forward(self, way, data, tos):
        self.kinds[way].append(kind(data))
        self.bytes[way] += len(data)
        self.marks[way].add(tos & 3)
        out, to = (self.back, self.target) if way == UP else (self.front, self.client)
        ancillary = [(socket.IPPROTO_IP, socket.IP_TOS, bytes([tos, 0, 0, 0]))] if self.family == socket.AF_INET else []
        try:
            out.sendmsg([data], ancillary, 0, to)
        except OSError:
            pass

    def _take(self, way, data, tos):
        self.came[way] += 1
        if self.judge:
            data = self.judge(way, self.came[way], data)
        if not data:
            return
        if self.delay:
            self._n += 1
            heapq.heappush(self._late, (time.monotonic() + self.delay, self._n, way, data, tos))
        else:
            self._forward(way, data, tos)

    def _read(self, s, way):
        for _ in range(64):
            try:
                data, ancillary, _, address = s.recvmsg(2048, 64, socket.MSG_DONTWAIT)
            except OSError:
                return
            if way == UP:
                self.client = address
            if data:
                self._take(way, data, next((value[0] for level, name, value in ancillary if name == socket.IP_TOS), 0))

    def _run(self):
        while not self._stop:
            wait = 0.02 if not self._late else min(0.02, max(0, self._late[0][0] - time.monotonic()))
            with self._lock:
                try:
                    ready, _, _ = select.select([self.front, self.back], [], [], wait)
                except (OSError, ValueError):
                    continue
                for s in ready:
                    self._read(s, UP if s is self.front else DOWN)
                while self._late and self._late[0][0] <= time.monotonic():
                    self._forward(*heapq.heappop(self._late)[2:])

    def close(self):
        end = time.monotonic() + 2 * self.delay  # the last packets arrive
        while time.monotonic() < end and (self._late or time.monotonic() < end - self.delay / 2):
            time.sleep(0.01)
        self._stop = True
        self._thread.join(2)
        self.front.close()
        self.back.close()
