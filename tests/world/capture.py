"""Packets of a host's device, with what is inside tunnels, for assertions:

    with Capture(router, "to-s11") as seen:
        ...
    assert any(p.tunnel == "gue" and p.outer_dst == "10.1.0.12" and p.dst == VIP4 for p in seen.packets())

A thread of our own goes into the host's namespace and opens an AF_PACKET socket there. decode() needs no socket: it reads one frame. What it cannot
read it says in .problem and reads no further; a frame that it knows nothing about (ARP, LLDP) is None.
"""

import collections
import ctypes
import ipaddress
import socket
import struct
import threading

CLONE_NEWNET = 0x40000000
GUE_PORT = 6080
TCP, UDP, IPIP, IPV6, ICMP, ICMP6, FRAGMENT = 6, 17, 4, 41, 1, 58, 44
PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp6"}
FLAGS = ((0x02, "S"), (0x10, "A"), (0x08, "P"), (0x01, "F"), (0x04, "R"))

PRIVATE = 0xCB
Between = collections.namedtuple("Between", "hop flags tag_key previous table_version tag")

FIELDS = ("tunnel outer_src outer_dst outer_ports outer_sum extra src dst protocol sport dport flags hops length payload problem")


class Packet(collections.namedtuple("Packet", FIELDS)):
    """tunnel: None, "ipip" or "gue". outer_*: the tunnel's addresses, UDP ports and UDP checksum (GUE), extra: the bytes of GUE between its first four and what it
    carries (what libcb's hosts write there: between_hosts). Then the packet itself: flags as in "SA" (TCP), hops left, length of the whole frame's IP part, payload behind TCP's or UDP's header."""

    @property
    def between_hosts(self):
        """struct cb_fw_gue of bpf/forward.h, or None."""
        if self.tunnel != "gue" or len(self.extra) != 20 or self.extra[0] != PRIVATE:
            return None
        return Between(*struct.unpack("!xBBBII8s", self.extra))


def ip_header(data):
    """(source, destination, protocol, hops, rest, problem) of an IP packet."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        size, total = (data[0] & 15) * 4, struct.unpack_from("!H", data, 2)[0]
        if size < 20 or total < size or total > len(data):
            return None, None, None, None, b"", "lengths of IPv4"
        source, destination = (str(ipaddress.IPv4Address(data[i:i + 4])) for i in (12, 16))
        problem = "fragment" if struct.unpack_from("!H", data, 6)[0] & 0x1FFF else None
        return source, destination, data[9], data[8], data[size:total], problem
    if version == 6 and len(data) >= 40:
        total, protocol = struct.unpack_from("!H", data, 4)[0] + 40, data[6]
        if total > len(data):
            return None, None, None, None, b"", "length of IPv6"
        source, destination = (str(ipaddress.IPv6Address(data[i:i + 16])) for i in (8, 24))
        return source, destination, protocol, data[7], data[40:total], "fragment" if protocol == FRAGMENT else None
    return None, None, None, None, b"", "no IP header"


def ports(protocol, rest):
    """(sport, dport, flags, payload, problem)"""
    if protocol == TCP and len(rest) >= 20:
        sport, dport = struct.unpack_from("!HH", rest)
        return sport, dport, "".join(c for bit, c in FLAGS if rest[13] & bit), rest[(rest[12] >> 4) * 4:], None
    if protocol == UDP and len(rest) >= 8:
        sport, dport = struct.unpack_from("!HH", rest)
        return sport, dport, "", rest[8:], None
    if protocol in (TCP, UDP):
        return None, None, "", b"", "short header"
    return None, None, "", rest, None


def decode(frame, gue_port=GUE_PORT):
    """One Ethernet frame."""
    kind = struct.unpack_from("!H", frame, 12)[0] if len(frame) >= 14 else 0
    return decode_ip(frame[14:], gue_port) if kind in (0x0800, 0x86DD) else None


def decode_ip(data, gue_port=GUE_PORT):
    source, destination, protocol, hops, rest, problem = ip_header(data)
    tunnel = outer_src = outer_dst = outer_ports = outer_sum = None
    extra = b""
    if not problem and protocol in (IPIP, IPV6):
        tunnel = "ipip"
    elif not problem and protocol == UDP and len(rest) >= 12 and struct.unpack_from("!H", rest, 2)[0] == gue_port:
        tunnel, outer_ports, outer_sum = "gue", struct.unpack_from("!HH", rest), struct.unpack_from("!H", rest, 6)[0]
        end = 12 + (rest[8] & 31) * 4
        if rest[8] >> 6 != 0 or rest[8] & 0x20 or rest[9] not in (IPIP, IPV6) or end > len(rest):
            problem = "header of GUE"
        extra, rest = rest[12:end], rest[end:]
    if tunnel:
        outer_src, outer_dst = source, destination
        if not problem:
            source, destination, protocol, hops, rest, problem = ip_header(rest)
    sport = dport = None
    flags = payload = ""
    if not problem:
        sport, dport, flags, payload, problem = ports(protocol, rest)
    return Packet(tunnel, outer_src, outer_dst, outer_ports, outer_sum, extra, source, destination, PROTOCOLS.get(protocol, protocol), sport, dport, flags, hops, len(data),
                  bytes(payload or b""), problem)


def socket_inside(space, make):
    """What make() returns when a thread calls it inside a namespace."""
    made = []

    def go():
        try:
            with open(f"/run/netns/{space}") as there:
                if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {space}")
            made.append(make())
        except OSError as error:
            made.append(error)

    worker = threading.Thread(target=go)
    worker.start()
    worker.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


class Capture:
    """keep(packet): which are kept (all when absent); at most `most` are."""

    def __init__(self, host, device, keep=None, most=100_000, gue_port=GUE_PORT):
        self.host, self.device, self.keep, self.most, self.gue_port = host, device, keep or (lambda packet: True), most, gue_port
        self.found = []

    def _open(self):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        sock.bind((self.device, 3))
        sock.settimeout(0.1)
        return sock

    def __enter__(self):
        self.socket = socket_inside(self.host.space, self._open)
        self.stopping = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        return self

    def _read(self):
        while not self.stopping:
            try:
                frame = self.socket.recv(65536)
            except socket.timeout:
                continue
            except OSError:
                return
            packet = decode(frame, self.gue_port)
            if packet and len(self.found) < self.most and self.keep(packet):
                self.found.append(packet)

    def __exit__(self, *exc):
        self.stopping = True
        self.thread.join()
        self.socket.close()

    def packets(self):
        return list(self.found)
