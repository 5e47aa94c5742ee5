"""A small ACME server for tests: profiles and ARI, no verification of challenges, and lies on demand (`lie`).

Certificates are made by openssl. Signatures of requests are not verified (pebble does that); structure and nonces are.
"""

import base64
import json
import os
import re
import ssl
import subprocess
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from conftest import free_port, peer

ERROR = "urn:ietf:params:acme:error:"


def start_pebble(tmp_path, spawn, ca, reject=0, strict=False, ports=None, **settings):
    """Debian's pebble with a name server that says 127.0.0.1 for every name: (ports, process)."""
    binary, dns = peer("pebble"), peer("pebble-challtestsrv")
    ports = {**{name: free_port() for name in ("acme", "admin", "http", "tls", "dns", "dns_admin")}, **(ports or {})}
    config = {"listenAddress": f"127.0.0.1:{ports['acme']}", "managementListenAddress": f"127.0.0.1:{ports['admin']}",
              "certificate": str(ca / "localhost.pem"), "privateKey": str(ca / "localhost-key.pem"),
              "httpPort": ports["http"], "tlsPort": ports["tls"], "externalAccountBindingRequired": False, **settings}
    (tmp_path / "pebble.json").write_text(json.dumps({"pebble": config}))
    spawn(dns, "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1", "-dns01", f"127.0.0.1:{ports['dns']}", "-management",
          f"127.0.0.1:{ports['dns_admin']}", "-http01", "", "-https01", "", "-tlsalpn01", "").wait_for("Starting management")
    env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(reject), "PEBBLE_AUTHZREUSE": "0"}
    server = spawn(binary, "-config", tmp_path / "pebble.json", "-dnsserver", f"127.0.0.1:{ports['dns']}", *(["-strict"] if strict else []), env=env)
    server.wait_for("ACME directory available")
    return ports, server


def dns_hook(tmp_path, dns_admin):
    """A program for dns-01 that tells pebble's name server, and keeps a log beside itself."""
    hook = tmp_path / "hook"
    hook.write_text("#!/usr/bin/python3\nimport json, sys, urllib.request\n"
                    "verb, name, value = sys.argv[1:]\n"
                    "data = {'host': f'_acme-challenge.{name}.', **({'value': value} if verb == 'add' else {})}\n"
                    f"url = 'http://127.0.0.1:{dns_admin}/' + ('set-txt' if verb == 'add' else 'clear-txt')\n"
                    "urllib.request.urlopen(url, json.dumps(data).encode(), timeout=10)\n"
                    "open(sys.argv[0] + '.log', 'a').write(verb + ' ' + name + '\\n')\n")
    hook.chmod(0o755)
    return hook


def unpack(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class AcmeServer:
    def __init__(self, ca, port, lie=None):
        self.ca, self.lie, self.port = Path(ca), lie, port
        self.base = f"https://127.0.0.1:{port}"
        self.url = self.base + "/dir"
        self.orders, self.asked, self.nonces, self.state = [], [], set(), {}
        self.window = None
        self.http_port = None  # where http-01 is looked up; None: everybody is believed
        self.requests = self.nonce_no = 0
        self.http = ThreadingHTTPServer(("127.0.0.1", port), self.handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca / "localhost.pem", self.ca / "localhost-key.pem")
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    def handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.reply(200, b"", {})

            def do_GET(self):
                server.requests += 1
                self.reply(*server.get(self.path))

            def do_POST(self):
                server.requests += 1
                jws = json.loads(self.rfile.read(int(self.headers["content-length"])))
                head = json.loads(unpack(jws["protected"]))
                assert self.headers["content-type"] == "application/jose+json" and self.headers["user-agent"].startswith("libcb/")
                assert head["alg"] == "ES256" and head["url"] == server.base + self.path and ("kid" in head) != ("jwk" in head)
                if head["nonce"] not in server.nonces or server.lie == "nonce-flood":
                    return self.reply(*server.problem(400, "badNonce", "no"))
                server.nonces.discard(head["nonce"])
                payload = unpack(jws["payload"])
                self.reply(*server.post(self.path, json.loads(payload) if payload else None))

            def reply(self, status, body, fields):
                body = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
                server.nonce_no += 1
                nonce = f"nonce-{server.nonce_no}"
                server.nonces.add(nonce)
                self.send_response(status)
                if server.lie != "no-nonce":
                    self.send_header("replay-nonce", nonce)
                for name, value in {"content-type": "application/json", **fields}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
        return Handler

    def problem(self, status, kind, detail, **fields):
        return status, {"type": ERROR + kind, "detail": detail}, {"content-type": "application/problem+json", **fields}

    def get(self, path):
        u = self.base
        if path.startswith("/ari/"):
            self.asked.append(path[5:])
            if not self.window:
                return self.problem(404, "malformed", "no such certificate")
            return 200, {"suggestedWindow": dict(zip(("start", "end"), self.window)), "explanationURL": u + "/why"}, {"retry-after": "21600"}
        directory = {"newNonce": u + "/nonce", "newAccount": u + "/account", "newOrder": u + "/order", "revokeCert": u + "/revoke",
                     "keyChange": u + "/key", "renewalInfo": u + "/ari", "meta": {"termsOfService": u + "/terms", "profiles": {"shortlived": "six days"}}}
        answers = {
            "nested": b"[" * 5000 + b"]" * 5000, "huge": b'{"a":"' + b"x" * 500000 + b'"}', "truncated": json.dumps(directory).encode()[:-9],
            "not-json": b"<html>hello</html>", "list": [directory], "twice": json.dumps(directory).replace('{', '{"newNonce":"https://elsewhere.example/nonce",', 1).encode(),
            "http-url": {**directory, "newOrder": u.replace("https", "http") + "/order"},
            "other-host": {**directory, "newOrder": "https://elsewhere.example/order"},
        }
        fields = {"content-type": "text/html"} if self.lie == "wrong-type" else {}
        if self.lie == "redirect":
            return 302, b"", {"location": u + "/dir2"}
        if self.lie == "server-error":
            return 503, b"", {"retry-after": "0"}
        return 200, answers.get(self.lie, directory), fields

    def order(self, no):
        o = self.state[no]
        names = o["identifiers"]
        answer = {"status": o["status"], "identifiers": names, "finalize": f"{self.base}/finalize/{no}",
                  "authorizations": [f"{self.base}/authz/{no}/{i}" for i in range(len(names) if self.lie != "many-authz" else 500)]}
        if o["status"] == "valid":
            answer["certificate"] = f"{self.base}/cert/{no}"
        return answer

    def post(self, path, payload):
        what, *rest = path.strip("/").split("/")
        return getattr(self, "post_" + what)(payload, *rest)

    def post_account(self, payload):
        return 201, {"status": "valid"}, {} if self.lie == "no-account-url" else {"location": self.base + "/account/1"}

    def post_order(self, payload, no=None):
        if no:
            return 200, self.order(int(no)), {}
        if self.lie == "rate-limit":
            return self.problem(429, "rateLimited", "too many", **{"retry-after": "3600"})
        if self.lie == "terminal":
            return self.problem(403, "rejectedIdentifier", "\x1b[31mred")
        self.orders.append(payload)
        no = len(self.orders)
        self.state[no] = {"identifiers": payload["identifiers"], "status": "pending", "authz": ["pending"] * len(payload["identifiers"])}
        return 201, self.order(no), {"location": f"{self.base}/order/{no}"}

    def post_authz(self, payload, no, i):
        o = self.state[int(no)]
        name = o["identifiers"][int(i)] if self.lie != "other-name" else {"type": "dns", "value": "victim.example.org"}
        challenge = {"type": "http-01", "url": f"{self.base}/challenge/{no}/{i}", "status": "pending",
                     "token": "../../etc/passwd" if self.lie == "odd-token" else "dG9rZW4" + no}
        if o["authz"][int(i)] == "invalid":
            challenge["error"] = {"type": ERROR + "connection", "detail": "the connection was refused"}
        return (200, {"status": o["authz"][int(i)], "identifier": name, "challenges": [{"type": "tls-alpn-01"}, challenge]},
                {"retry-after": "9999"} if self.lie == "late" else {})

    def post_challenge(self, payload, no, i):
        o = self.state[int(no)]
        if self.http_port and not self.shown("dG9rZW4" + no):
            self.lie = "invalid"
        o["authz"][int(i)] = {"pending": "pending", "late": "pending", "invalid": "invalid"}.get(self.lie, "valid")
        if all(state == "valid" for state in o["authz"]):
            o["status"] = "ready"
        return 200, {"type": "http-01", "status": "processing", "url": f"{self.base}/challenge/{no}/{i}", "token": "dG9rZW4" + no}, {}

    def shown(self, token):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/.well-known/acme-challenge/{token}", timeout=10) as answer:
                return re.fullmatch(re.escape(token) + r"\.[\w-]{43}", answer.read().decode()) is not None
        except OSError:
            return False

    def post_finalize(self, payload, no):
        o = self.state[int(no)]
        o["status"], o["csr"] = "valid", unpack(payload["csr"])
        return 200, self.order(int(no)), {}

    def post_cert(self, payload, no):
        return 200, self.certificate(self.state[int(no)]), {"content-type": "application/pem-certificate-chain"}

    def certificate(self, order):
        if self.lie == "no-chain":
            return b"hello"
        names = [f"DNS:{x['value']}" for x in order["identifiers"]]
        names = {"other-names": [], "more-names": names + ["DNS:victim.example.org"]}.get(self.lie, names)
        with tempfile.TemporaryDirectory() as folder:
            f = Path(folder)
            (f / "csr.der").write_bytes(order["csr"])
            openssl = lambda *words: subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
            openssl("req", "-inform", "DER", "-in", f / "csr.der", "-out", f / "csr.pem")
            if self.lie == "other-key":
                openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f / "k.pem", "-subj", "/", "-out", f / "csr.pem")
            (f / "ext").write_text(("subjectAltName=" + ",".join(names) + "\n" if names else "") + "authorityKeyIdentifier=keyid:always\n")
            openssl("x509", "-req", "-in", f / "csr.pem", "-CA", self.ca / "ca.pem", "-CAkey", self.ca / "ca-key.pem", "-days", "6",
                    "-set_serial", "0x4" + "1" * 15, "-extfile", f / "ext", "-out", f / "leaf.pem")
            above = (self.ca / ("localhost.pem" if self.lie == "bad-chain" else "ca.pem")).read_bytes()
            return (f / "leaf.pem").read_bytes() + above
