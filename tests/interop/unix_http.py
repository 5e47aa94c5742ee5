"""JSON over HTTP on a unix socket: what a test needs to ask a daemon."""

import http.client
import json
import socket


class Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout=20):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, response):
        self.status, self.body = response.status, response.read()
        self.fields = {k.lower(): v for k, v in response.getheaders()}
        self.revision = int(self.fields.get("etag", '"0"').strip('"'))

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:400]!r}"


def ask(path, method, target, value=None, kind="application/json", connection=None, **fields):
    """One request; value: what json.dumps takes, or bytes as they are."""
    c = connection or Connection(path)
    body = None if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
    head = {k.replace("_", "-"): v for k, v in fields.items()}
    if body is not None:
        head["content-type"] = kind
    try:
        c.request(method, target, body=body, headers=head)
        return Answer(c.getresponse())
    finally:
        if not connection:
            c.close()
