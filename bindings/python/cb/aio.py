"""HTTP/1.1, HTTP/2 and HTTP/3 on asyncio.

A client::

    async with cb.aio.Client(ca_file="ca.pem", versions=cb.HTTP_3) as client:
        response = await client.get("https://localhost:8443/")
        print(response.status, await response.read())

A server::

    async def hello(request):
        return cb.aio.Response(200, body=b"hello\\n")

    async with cb.aio.Server("127.0.0.1:8443", cb.Identity("cert.pem", "key.pem"), hello) as server:
        await asyncio.Event().wait()

libcb's loop is driven by asyncio's: one readable descriptor, one timer, and a step. Nothing here starts a thread.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import weakref
from typing import AsyncIterable, AsyncIterator, Awaitable, Callable, Deque, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from . import Error, Identity, Path, Sessions, Tickets, _fields, _options, _slice_bytes, _text, check
from ._cb import ffi, lib
from .metrics import Registry
from .peer import Peer, hold

__all__ = ["Client", "Server", "Request", "Response", "Message", "count_into", "HTTP_1", "HTTP_2", "HTTP_3"]

from . import HTTP_1, HTTP_2, HTTP_3  # noqa: E402  (re-exported for convenience)

Headers = Union[Mapping[str, str], Iterable[Tuple[str, str]]]
Body = Union[bytes, bytearray, memoryview, AsyncIterable[bytes], None]

RECEIVE_BUFFER_BYTES = 256 * 1024
CLIENT_CERTIFICATES = ("none", "ask", "require")
_log = logging.getLogger("cb")
_LEVELS = {lib.CB_LOG_DEBUG: logging.DEBUG, lib.CB_LOG_INFO: logging.INFO, lib.CB_LOG_WARN: logging.WARNING, lib.CB_LOG_ERROR: logging.ERROR}


def _pairs(headers: Optional[Headers]) -> List[Tuple[str, str]]:
    if headers is None:
        return []
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def count_into(metrics: Registry) -> None:
    """What clients and servers of this asyncio loop do is counted there, in the families of docs/metrics.md. Call it before the first of them is made."""
    host = asyncio.get_running_loop()
    if host in _Bridge._all:
        raise RuntimeError("count_into() comes before the first client or server")
    _Bridge._metrics[host] = metrics


class _Bridge:
    """libcb's loop inside asyncio's. Shared by every client and server of one asyncio loop; gone with the last of them."""

    _all: Dict[asyncio.AbstractEventLoop, "_Bridge"] = {}
    _metrics: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Registry]" = weakref.WeakKeyDictionary()

    @classmethod
    def acquire(cls) -> "_Bridge":
        host = asyncio.get_running_loop()
        bridge = cls._all.get(host)
        if bridge is None:
            bridge = cls._all[host] = cls(host)
        bridge.users += 1
        return bridge

    def __init__(self, host: asyncio.AbstractEventLoop) -> None:
        self.host, self.users, self.timer, self.soon = host, 0, None, None
        self.log = ffi.new("cb_log *", {"write": lib.cbpy_log, "level": lib.CB_LOG_DEBUG if _log.isEnabledFor(logging.DEBUG) else lib.CB_LOG_INFO})
        opts = _options("cb_loop_opts")
        opts.log = self.log
        if host in self._metrics:
            opts.metrics = self._metrics[host].pointer
        out = ffi.new("cb_loop **")
        check(lib.cb_loop_new(out, opts))
        self.pointer = out[0]
        self.fd = lib.cb_loop_fd(self.pointer)
        host.add_reader(self.fd, self.step)

    def release(self) -> None:
        self.users -= 1
        if self.users:
            return
        del self._all[self.host]
        self.host.remove_reader(self.fd)
        for handle in (self.timer, self.soon):
            if handle is not None:
                handle.cancel()
        lib.cb_loop_free(self.pointer)
        self.pointer = None

    def kick(self) -> None:
        """Something may have been queued: step in this turn of asyncio, once."""
        if self.soon is None and self.pointer is not None:
            self.soon = self.host.call_soon(self.step)

    def step(self) -> None:
        if self.soon is not None:
            self.soon.cancel()
            self.soon = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.pointer is None:
            return
        lib.cb_loop_step(self.pointer)
        if self.pointer is None or self.soon is not None:
            return
        wait = lib.cb_loop_timeout_ms(self.pointer)
        if wait == 0:
            self.kick()
        elif wait > 0:
            self.timer = self.host.call_later(wait / 1000, self.step)


class Message:
    """What was received on an exchange: headers, and a body to read whole or in pieces."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._x = ffi.NULL
        self._peer_pointer = ffi.NULL
        self._peer: Optional[Peer] = None
        self._handle = ffi.new_handle(self)
        self._chunks: Deque[bytes] = collections.deque()
        self._size = 0
        self._held = False
        self._ended = False
        self._error: Optional[Error] = None
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._closed: asyncio.Future = bridge.host.create_future()
        self.headers: List[Tuple[str, str]] = []
        self.trailers: List[Tuple[str, str]] = []
        self.version = 0

    def header(self, name: str) -> Optional[str]:
        """The first header of that name, in any case."""
        name = name.lower()
        return next((value for key, value in self.headers if key == name), None)

    @property
    def peer(self) -> Optional[Peer]:
        """Who the other side is, by its verified certificate; None when it showed none."""
        if self._peer is None and self._peer_pointer:
            self._peer = Peer(self._peer_pointer)
        return self._peer

    async def read(self) -> bytes:
        """The whole body. Raises Error when the peer went away in the middle."""
        return b"".join([chunk async for chunk in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._size -= len(chunk)
                if self._held and self._size < RECEIVE_BUFFER_BYTES // 2 and self._x:
                    self._held = False
                    lib.cb_exchange_resume(self._x)
                    self._bridge.kick()
                yield chunk
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()

    async def _send(self, body: Body) -> None:
        if body is None:
            pass
        elif isinstance(body, (bytes, bytearray, memoryview)):
            await self._write(body)
        else:
            async for chunk in body:
                await self._write(chunk)
        if self._x:
            check(lib.cb_exchange_finish(self._x))
            self._bridge.kick()

    async def _write(self, data: Union[bytes, bytearray, memoryview]) -> None:
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        while len(view):
            if not self._x:
                raise self._error or Error(lib.CB_ECLOSED, "the exchange is closed")
            buffer = ffi.from_buffer("uint8_t[]", view)
            taken = lib.cb_exchange_write(self._x, ffi.new("cb_slice *", (buffer, len(view)))[0])
            self._bridge.kick()
            if taken == lib.CB_EAGAIN:
                self._writable.clear()
                await self._writable.wait()
                continue
            view = view[check(taken):]

    def _read_fields(self, getter) -> List[Tuple[str, str]]:
        n = ffi.new("size_t *")
        at = getter(self._x, n)
        return [(_slice_bytes(f.name).decode("latin-1"), _slice_bytes(f.value).decode("latin-1")) for f in (at[i] for i in range(n[0]))]

    # --- called by libcb ---
    def _on_head(self) -> None:
        self._peer_pointer = hold(self._x)
        self.headers = self._read_fields(lib.cb_exchange_fields)
        self.version = lib.cb_exchange_version(self._x)
        self._changed.set()

    def _on_body(self, data: bytes) -> int:
        if self._size >= RECEIVE_BUFFER_BYTES:
            self._held = True
            return 0
        self._chunks.append(data)
        self._size += len(data)
        self._changed.set()
        return len(data)

    def _on_end(self) -> None:
        self.trailers = self._read_fields(lib.cb_exchange_trailers)
        self._ended = True
        self._changed.set()

    def _on_close(self, rc: int) -> None:
        if rc < 0:
            self._error = Error(rc)
        elif not self._ended:
            self._error = Error(lib.CB_ECLOSED, "closed before the message was complete")
        self._x = ffi.NULL
        self._changed.set()
        self._writable.set()
        if not self._closed.done():
            self._closed.set_result(rc)


class Request(Message):
    """A request that a server received."""

    def _on_head(self) -> None:
        super()._on_head()
        self.method = _slice_bytes(lib.cb_exchange_method(self._x)).decode("latin-1")
        self.scheme = _slice_bytes(lib.cb_exchange_scheme(self._x)).decode("latin-1")
        self.authority = _slice_bytes(lib.cb_exchange_authority(self._x)).decode("latin-1")
        self.path = _slice_bytes(lib.cb_exchange_path(self._x)).decode("latin-1")
        self.remote = ffi.string(lib.cb_exchange_remote(self._x)).decode()


class Response:
    """What a handler answers with. The body may be bytes or an async iterator of bytes."""

    def __init__(self, status: int = 200, headers: Optional[Headers] = None, body: Body = b"") -> None:
        self.status, self.headers, self.body = status, _pairs(headers), body


class ClientResponse(Message):
    """A response that a client received; ``status`` and ``headers`` are there, the body streams."""

    status: int = 0

    def _on_head(self) -> None:
        super()._on_head()
        self.status = lib.cb_exchange_status(self._x)

    def close(self) -> None:
        """Gives the rest of the response up."""
        if self._x:
            lib.cb_exchange_reset(self._x, lib.CB_RESET_CANCEL)
            self._bridge.kick()

    async def __aenter__(self) -> "ClientResponse":
        return self

    async def __aexit__(self, *exc) -> None:
        self.close()


_OPS = ffi.new(
    "cb_exchange_ops *",
    {
        "size": ffi.sizeof("cb_exchange_ops"),
        "on_head": lib.cbpy_on_head,
        "on_body": lib.cbpy_on_body,
        "on_end": lib.cbpy_on_end,
        "on_writable": lib.cbpy_on_writable,
        "on_close": lib.cbpy_on_close,
    },
)
_SERVER_OPS = ffi.new("cb_exchange_ops *", {"size": ffi.sizeof("cb_exchange_ops"), "on_head": lib.cbpy_on_request})


class Client:
    """An HTTP client with kept connections. Use it as an async context manager."""

    def __init__(self, *, ca_file: Optional[Path] = None, identity: Optional[Identity] = None, versions: int = 0, connect_timeout: float = 0,
                 server_name: Optional[str] = None, sessions: Optional[Sessions] = None, early_data: bool = False, alt_svc: bool = True,
                 follow_network: bool = False, h3_head_start: float = 0, h3_retry: float = 0) -> None:
        self._alt_svc, self._follow_network, self._h3_head_start, self._h3_retry = alt_svc, follow_network, h3_head_start, h3_retry
        self._identity = identity or (Identity(ca_file=ca_file) if ca_file else None)
        self._sessions, self._early_data = sessions, early_data
        self._versions, self._connect_timeout, self._server_name = versions, connect_timeout, server_name
        self._open: set = set()
        self._pointer = None

    async def __aenter__(self) -> "Client":
        keep: list = []
        self._bridge = _Bridge.acquire()
        opts = _options("cb_http_client_opts")
        opts.identity = self._identity.pointer if self._identity else ffi.NULL
        opts.versions, opts.connect_timeout_ms = self._versions, int(self._connect_timeout * 1000)
        opts.sessions = self._sessions.pointer if self._sessions else ffi.NULL
        opts.early_data = self._early_data
        opts.alt_svc, opts.follow_network = not self._alt_svc, self._follow_network
        opts.h3_head_start_ms, opts.h3_retry_ms = int(self._h3_head_start * 1000), int(self._h3_retry * 1000)
        opts.server_name = _text(keep, self._server_name)
        out = ffi.new("cb_http_client **")
        try:
            check(lib.cb_http_client_new(out, self._bridge.pointer, opts))
        except Error:
            self._bridge.release()
            raise
        self._pointer = out[0]
        return self

    async def __aexit__(self, *exc) -> None:
        lib.cb_http_client_free(self._pointer)
        self._pointer = None
        self._bridge.step()
        self._bridge.release()

    def network_changed(self) -> None:
        """Tells that addresses or routes of this host changed; with follow_network it notices by itself."""
        check(lib.cb_http_client_network_changed(self._pointer))
        self._bridge.kick()

    def stats(self) -> Dict[str, int]:
        """Counters since ever: opened_h1, opened_h2, opened_h3, failed, retried, moved, silent, probes, migrated, network_changes."""
        out = _options("cb_http_client_stats")
        check(lib.cb_http_client_stats_get(self._pointer, out))
        return {name: getattr(out, name) for name, _ in ffi.typeof("cb_http_client_stats").fields if name not in ("size", "reserved")}

    async def get(self, url: str, **kw) -> ClientResponse:
        return await self.request("GET", url, **kw)

    async def post(self, url: str, body: Body, **kw) -> ClientResponse:
        return await self.request("POST", url, body=body, **kw)

    async def request(self, method: str, url: str, *, headers: Optional[Headers] = None, body: Body = None, versions: int = 0,
                      timeout: float = 0, connect_to: Optional[str] = None) -> ClientResponse:
        """Sends a request; returns when the response's head is there. ``connect_to`` ("address:port" or "unix:/path") is dialled instead of
        the URL's host. Raises Error."""
        keep: list = []
        response = ClientResponse(self._bridge)
        req = _options("cb_request")
        req.method, req.url = _text(keep, method), _text(keep, url)
        req.fields, req.n_fields = _fields(keep, _pairs(headers))
        req.connect_to = _text(keep, connect_to)
        req.versions, req.timeout_ms, req.has_body = versions, int(timeout * 1000), body is not None
        out = ffi.new("cb_exchange **")
        check(lib.cb_http_request(out, self._pointer, req, _OPS, response._handle))
        response._x = out[0]
        self._open.add(response)
        response._closed.add_done_callback(lambda _: self._open.discard(response))
        self._bridge.kick()
        sender = asyncio.ensure_future(response._send(body)) if body is not None else None
        try:
            while not response.status and response._error is None:
                response._changed.clear()
                await response._changed.wait()
        except asyncio.CancelledError:
            response.close()
            raise
        finally:
            if sender is not None and (response._error is not None or response._closed.done()):
                sender.cancel()
        if response._error is not None and not response.status:
            raise response._error
        return response


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """An HTTP server: one coroutine a request. Use it as an async context manager; ``address`` has the real port."""

    def __init__(self, listen: str, identity: Optional[Identity], handler: Handler, *, tickets: Optional[Tickets] = None, versions: int = 0,
                 drain: float = 5.0, client_certificates: str = "none") -> None:
        self._listen, self._identity, self._handler, self._tickets = listen, identity, handler, tickets
        self._versions, self._drain = versions, drain
        self._client_certificates = CLIENT_CERTIFICATES.index(client_certificates)
        self._handle = ffi.new_handle(self)
        self._tasks: set = set()
        self._pointer = None

    async def __aenter__(self) -> "Server":
        keep: list = []
        self._bridge = _Bridge.acquire()
        self._drained = asyncio.Event()
        opts = _options("cb_http_server_opts")
        opts.listen = _text(keep, self._listen)
        opts.identity = self._identity.pointer if self._identity else ffi.NULL
        opts.tickets = self._tickets.pointer if self._tickets else ffi.NULL
        opts.versions, opts.ops, opts.user = self._versions, _SERVER_OPS, self._handle
        opts.request_client_cert = self._client_certificates
        out = ffi.new("cb_http_server **")
        try:
            check(lib.cb_http_server_new(out, self._bridge.pointer, opts))
        except Error:
            self._bridge.release()
            raise
        self._pointer = out[0]
        lib.cb_http_server_on_drained(self._pointer, lib.cbpy_on_drained, self._handle)
        self._bridge.kick()
        return self

    @property
    def address(self) -> str:
        return ffi.string(lib.cb_http_server_address(self._pointer)).decode()

    async def drain(self, deadline: Optional[float] = None) -> None:
        """Takes no new connections, and returns when the last one is gone or the deadline (seconds) has passed."""
        check(lib.cb_http_server_drain(self._pointer, int(1000 * (self._drain if deadline is None else deadline))))
        self._bridge.kick()
        await self._drained.wait()

    async def __aexit__(self, *exc) -> None:
        try:
            await self.drain()
        finally:
            lib.cb_http_server_free(self._pointer)
            self._pointer = None
            self._bridge.step()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._bridge.release()

    def _accept(self, x) -> int:
        request = Request(self._bridge)
        request._x = x
        lib.cb_exchange_handle(x, _OPS, request._handle)
        request._on_head()
        task = self._bridge.host.create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lib.CB_OK

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._handler(request)
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("the handler of %s %s failed", request.method, request.path)
            response = Response(500, {"content-type": "text/plain"}, b"internal error\n")
        try:
            await self._reply(request, response)
        except Error as error:
            if error.code != lib.CB_ECLOSED:
                _log.warning("answering %s %s: %s", request.method, request.path, error)
        await request._closed  # keeps the callback's target alive

    async def _reply(self, request: Request, response: Response) -> None:
        if not request._x:
            return
        keep: list = []
        headers = response.headers
        if isinstance(response.body, (bytes, bytearray, memoryview)) and not any(k.lower() == "content-length" for k, _ in headers):
            headers = [*headers, ("content-length", str(len(response.body)))]
        fields, n = _fields(keep, headers)
        check(lib.cb_exchange_reply(request._x, response.status, fields, n))
        self._bridge.kick()
        try:
            await request._send(response.body)
        except Exception:
            if request._x:
                lib.cb_exchange_reset(request._x, lib.CB_RESET_INTERNAL)
                self._bridge.kick()
            raise


# --- the C callbacks: find the object, pass on; an exception here resets the exchange and is logged by cffi ---
@ffi.def_extern(error=lib.CB_EUSER)
def cbpy_on_head(x, user):
    ffi.from_handle(user)._on_head()
    return lib.CB_OK


@ffi.def_extern(error=lib.CB_EUSER)
def cbpy_on_body(x, data, user):
    return ffi.from_handle(user)._on_body(_slice_bytes(data))


@ffi.def_extern(error=lib.CB_EUSER)
def cbpy_on_end(x, user):
    ffi.from_handle(user)._on_end()
    return lib.CB_OK


@ffi.def_extern(error=lib.CB_EUSER)
def cbpy_on_writable(x, user):
    ffi.from_handle(user)._writable.set()
    return lib.CB_OK


@ffi.def_extern()
def cbpy_on_close(x, rc, user):
    ffi.from_handle(user)._on_close(rc)


@ffi.def_extern(error=lib.CB_EUSER)
def cbpy_on_request(x, user):
    return ffi.from_handle(user)._accept(x)


@ffi.def_extern()
def cbpy_on_drained(loop, user):
    ffi.from_handle(user)._drained.set()


@ffi.def_extern()
def cbpy_log(level, module, text, user):
    _log.log(_LEVELS.get(level, logging.INFO), "%s: %s", ffi.string(module).decode(), ffi.string(text).decode(errors="replace"))
