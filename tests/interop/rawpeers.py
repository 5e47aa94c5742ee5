"""Peers that break rules on purpose: an origin that sends what it is told byte by byte, and HTTP/2 frames made by hand."""

import socket
import ssl
import struct
import threading


class RawOrigin:
    """Accepts connections; play(connection, head) does as it likes. All bytes that came are kept, a list entry a connection."""

    def __init__(self, play):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.play, self.got = play, []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            seen = bytearray()
            self.got.append(seen)
            threading.Thread(target=self._serve, args=(connection, seen), daemon=True).start()

    def _serve(self, connection, seen):
        try:
            with connection:
                self.play(connection, seen)
        except OSError:
            pass

    def close(self):
        self.listener.close()

    def all(self):
        return b"".join(bytes(seen) for seen in self.got)


def read_head(connection, seen):
    """Reads up to the end of a head; more may have come with it. Returns what is new in seen."""
    start = len(seen)
    while b"\r\n\r\n" not in seen[start:]:
        more = connection.recv(65536)
        if not more:
            raise OSError("closed")
        seen += more
    return bytes(seen[start:])


def drain(connection, seen, seconds=1.0):
    connection.settimeout(seconds)
    try:
        while more := connection.recv(65536):
            seen += more
    except TimeoutError:
        pass


def answers(data):
    """A play: one head in, these bytes out, then everything is read until the peer leaves."""

    def play(connection, seen):
        read_head(connection, seen)
        connection.sendall(data)
        drain(connection, seen)

    return play


# ---- HTTP/2 by hand: literal fields without Huffman, so that every byte can be chosen ----

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def hpack_int(value, bits, first):
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = bytearray([first | most]), value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def block(fields):
    out = b""
    for name, value in fields:
        name, value = (t.encode("latin-1") if isinstance(t, str) else t for t in (name, value))
        out += b"\0" + hpack_int(len(name), 7, 0) + name + hpack_int(len(value), 7, 0) + value
    return out


def request(path="/", method="GET", authority="localhost", scheme="https", more=()):
    return [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path), *more]


class H2:
    """A client on TLS, with nothing but frames. frames() reads what has come."""

    def __init__(self, port, ca=None, settings=b"", greet=True):
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.s = context.wrap_socket(raw, server_hostname="localhost")
        assert self.s.selected_alpn_protocol() == "h2"
        self.buffer = b""
        if greet:
            self.s.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, *frames):
        self.s.sendall(b"".join(frames))

    def headers(self, stream, fields, end=True):
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields)))

    def frames(self, seconds=1.0, until=None):
        """All frames until the peer is quiet for so long or closes, or one for which until(frame) is true."""
        out = []
        self.s.settimeout(seconds)
        while True:
            while len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + length:
                    break
                one = (self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big"), self.buffer[9:9 + length])
                self.buffer = self.buffer[9 + length:]
                out.append(one)
                if until and until(one):
                    return out
            try:
                more = self.s.recv(65536)
            except (TimeoutError, ConnectionError, ssl.SSLError):
                return out
            if not more:
                return out
            self.buffer += more

    def end_of(self, stream, seconds=2.0):
        """Frames up to the end of a stream, or of the connection."""
        return self.frames(seconds, lambda f: f[0] == GOAWAY or (f[2] == stream and (f[0] == RST or f[0] in (DATA, HEADERS) and f[1] & END_STREAM)))

    def close(self):
        self.s.close()
