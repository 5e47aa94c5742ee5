"""A daemon's admin interface as a test wants it: canned answers on a unix socket, good ones and such as nobody should send."""

import contextlib
import http.server
import json
import socket
import socketserver
import threading

METRICS = """\
# HELP cb_demo_requests Requests.
# TYPE cb_demo_requests counter
cb_demo_requests_total{route="web",class="2xx"} 120
cb_demo_requests_total{route="web",class="5xx"} 3
# HELP cb_demo_seconds Time to answer.
# TYPE cb_demo_seconds histogram
cb_demo_seconds_bucket{route="web",le="0.001"} 50
cb_demo_seconds_bucket{route="web",le="0.01"} 90
cb_demo_seconds_bucket{route="web",le="0.1"} 100
cb_demo_seconds_bucket{route="web",le="+Inf"} 100
cb_demo_seconds_sum{route="web"} 0.5
cb_demo_seconds_count{route="web"} 100
# TYPE process_open_fds gauge
process_open_fds 12
"""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class FakeAdmin:
    """answers maps "GET /path" (without the query) to what is said: (status, headers, body), raw bytes, or a function of the handler.

    Bodies that are not bytes or str are JSON. What was asked is in .asked: (method, path with query, headers, body)."""

    def __init__(self, path, answers):
        self.path, self.answers, self.asked, self.open = str(path), answers, [], set()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                fake.open.add(self.connection)

            def finish(self):
                fake.open.discard(self.connection)
                super().finish()

            def address_string(self):
                return "unix"

            def log_message(self, *args):
                pass

            def handle_one(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                fake.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                answer = fake.answers.get(f"{self.command} {self.path.split('?')[0]}")
                if callable(answer):
                    answer = answer(self)
                if answer is None:
                    answer = problem(404, "Not Found", f"there is no {self.path.split('?')[0]}")
                if isinstance(answer, bytes):
                    self.wfile.write(answer)
                    self.close_connection = True
                    return
                status, headers, body = answer
                if not isinstance(body, (bytes, str)):
                    body = json.dumps(body)
                body = body.encode() if isinstance(body, str) else body
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_one

        self.server = Server(self.path, Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def problem(status, title, detail=None, **more):
    body = {"type": "about:blank", "title": title, "status": status, **({"detail": detail} if detail else {}), **more}
    return status, {"content-type": "application/problem+json"}, body


def deaf(path):
    """A socket that takes connections and never says a word; close it at the end."""
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(path))
    s.listen(8)
    return s


class Edge:
    """Answers of a cb-edge that is at work: each scrape is a second after the one before."""

    def __init__(self, origins=2):
        self.scrapes, self.origins = 0, origins

    def metrics(self, handler=None):
        n = self.scrapes
        self.scrapes += 1
        shares = (("1.1", 1), ("2", 4), ("3", 5))
        lines = [f'cb_http_server_connections{{version="{version}"}} {share}' for version, share in shares]
        lines += [f'cb_http_server_requests_total{{listener="https",version="{version}",class="2xx"}} {100 * share * n}' for version, share in shares]
        lines += [f'cb_http_server_requests_total{{listener="https",version="2",class="5xx"}} {3 * n}',
                  "# TYPE cb_http_server_request_seconds histogram"]
        for le, share in (("0.001", 500), ("0.01", 900), ("0.1", 1000), ("+Inf", 1000)):
            lines.append(f'cb_http_server_request_seconds_bucket{{version="2",le="{le}"}} {share * n}')
        lines += [f"cb_http_server_request_seconds_sum{{version=\"2\"}} {5 * n}", f'cb_http_server_request_seconds_count{{version="2"}} {1000 * n}',
                  'cb_http_server_active_requests{version="2"} 7', f'cb_http_server_body_bytes_total{{direction="in"}} {1024 * n}',
                  f'cb_http_server_body_bytes_total{{direction="out"}} {1048576 * n}', f'cb_tls_handshakes_total{{side="server"}} {2 * n}',
                  f"cb_loop_busy_seconds_total {0.25 * n}", f"cb_loop_wait_seconds_total {0.75 * n}", "cb_edge_workers 2", "cb_edge_draining 0",
                  f"process_cpu_seconds_total {0.5 * n}", "process_resident_memory_bytes 35651584", "process_open_fds 42"]
        for i in range(self.origins):
            lines.append(f'cb_origin_requests_total{{group="web",origin="http://10.0.0.{i}:80",class="2xx"}} {(10 + i) * n}')
            lines.append(f'cb_origin_active_requests{{group="web",origin="http://10.0.0.{i}:80"}} {i}')
        lines.sort(key=lambda line: line.split("{")[0] if "cb_origin" in line else "")
        lines.append("# TYPE cb_origin_response_seconds histogram")
        for le, share in (("0.001", 10), ("0.01", 10), ("+Inf", 20)):
            lines.append(f'cb_origin_response_seconds_bucket{{group="web",le="{le}"}} {share * n}')
        return 200, {"content-type": "text/plain; version=0.0.4"}, "\n".join(lines) + "\n"

    def answers(self):
        pools = [{"group": "web", "origins": [{"url": f"http://10.0.0.{i}:80", "state": "down" if i == 1 else "up", "out": i == 5}
                                              for i in range(self.origins)]}]
        return {"GET /metrics": self.metrics, "GET /v1/pools": (200, {}, {"items": pools, "next": None}),
                "GET /v1/status": (200, {}, {"name": "cb-edge", "version": "0.1.0", "pid": 4711, "revision": 17})}
