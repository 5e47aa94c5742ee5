"""A client of a daemon's administration interface: how it is, its metrics, its configuration. See docs/guide/admin.md.

    async with cb.admin.Admin("/run/cb-edge/admin.sock") as edge:
        page = await edge.metrics()
        print(page.value("cb_http_server_requests", **{"class": "5xx"}))
        config = await edge.config("/groups/web")
        config.value["origins"].append({"url": "http://10.0.0.2:8080"})
        change = await edge.put("/groups/web", config.value, if_match=config.revision, why="one more origin")
        await edge.rollback(config.revision)

Whatever the daemon refuses raises :class:`Problem` or one of its kinds; not reaching it raises :class:`cb.Error`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from . import Error, Identity, Path
from . import aio
from ._cb import lib

__all__ = ["Admin", "Change", "Config", "Conflict", "Denied", "Event", "Family", "Histogram", "InvalidConfig", "Metrics", "Mistake", "Problem",
           "Revision", "Sample", "SOCKET"]

SOCKET = "/run/cb-edge/admin.sock"
ANSWER_BYTES = 64 * 1024 * 1024
PAGE = 1000
AGAIN = 0.2
Match = Union[int, str, None]


# ---- what goes wrong ----


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a configuration. Line and column are those of the body that was sent; 0: not known."""

    pointer: str
    detail: str
    line: int = 0
    column: int = 0


class Problem(Exception):
    """The daemon said no (RFC 9457). ``status`` is that of HTTP, ``errors`` the mistakes of a configuration, ``body`` all that it said."""

    def __init__(self, status: int, title: str, detail: str = "", errors: Tuple[Mistake, ...] = (), body: Any = None) -> None:
        self.status, self.title, self.detail, self.errors, self.body = status, title, detail, errors, body
        lines = [f"{status} {title}" + (f": {detail}" if detail else "")]
        lines += [f"{m.line}:{m.column}: {m.pointer}: {m.detail}" if m.line else f"{m.pointer}: {m.detail}" for m in errors]
        super().__init__("\n".join(lines))


class Denied(Problem):
    """401 and 403: no right to that."""


class Conflict(Problem):
    """409, 412 and 428: it is not as the request expects. With ``if_match``: somebody else has changed it."""


class InvalidConfig(Problem):
    """A configuration with mistakes; nothing has changed."""


def _mistakes(body: Any) -> Tuple[Mistake, ...]:
    found = body.get("errors") if isinstance(body, dict) else None

    def number(m: dict, name: str) -> int:
        value = m.get(name)
        return value if isinstance(value, int) and value > 0 else 0

    return tuple(Mistake(str(m.get("pointer", "")), str(m.get("detail", "")), number(m, "line"), number(m, "column"))
                 for m in (found if isinstance(found, list) else []) if isinstance(m, dict))


def _problem(status: int, kind: str, data: bytes) -> Problem:
    body: Any = None
    if "json" in kind:
        try:
            body = json.loads(data)
        except ValueError:
            pass
    about = body if isinstance(body, dict) else {}
    errors = _mistakes(body)
    of = Denied if status in (401, 403) else Conflict if status in (409, 412, 428) else InvalidConfig if errors else Problem
    return of(status, str(about.get("title", "an answer that is no problem document")), str(about.get("detail", "")), errors, body)


# ---- what is answered ----


@dataclass(frozen=True)
class Config:
    """A configuration, or a part of one, and the revision that it is of."""

    value: Any
    revision: int


@dataclass(frozen=True)
class Change:
    """What came of a change. ``changed`` is False when everything was so already."""

    revision: int
    changed: bool
    dry_run: bool


@dataclass(frozen=True)
class Revision:
    """A configuration that was accepted. ``document`` is there when one was asked for alone."""

    number: int
    time: str
    actor: str
    reason: str
    running: bool
    document: Any = None
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Event:
    """Something that happened: ``config``, ``reload``, ``drain``, ``origin``, ``certificate``, ``log-levels``, ``stats``."""

    type: str
    data: Any
    id: str = ""


def _revision(body: Any) -> Revision:
    if not isinstance(body, dict) or not isinstance(body.get("revision"), int):
        raise Error(lib.CB_EPROTO, "a revision without its number")
    return Revision(body["revision"], str(body.get("time", "")), str(body.get("actor", "")), str(body.get("reason", "")),
                    body.get("running") is True, body.get("document"), body)


def _of_etag(etag: Optional[str]) -> int:
    """The number in ``"17"``; 0: there is none."""
    found = re.fullmatch(r'(?:W/)?"(\d{1,18})"', etag or "")
    return int(found[1]) if found else 0


# ---- metrics ----


@dataclass(frozen=True)
class Sample:
    """One value. ``name`` has the ending that the format gives it: ``_total``, ``_bucket``, ``_sum``, ``_count``."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Histogram:
    """How values are spread: ``buckets`` are upper bounds, rising, with how many values are at or below them."""

    buckets: Tuple[Tuple[float, float], ...]
    sum: float
    count: float

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else math.nan

    def since(self, before: "Histogram") -> "Histogram":
        """What came since an earlier scrape of the same."""
        old = dict(before.buckets)
        return Histogram(tuple((le, max(0.0, n - old.get(le, 0.0))) for le, n in self.buckets), max(0.0, self.sum - before.sum),
                         max(0.0, self.count - before.count))

    def quantile(self, q: float) -> float:
        """An estimate, interpolated within a bucket as Prometheus does it; NaN when there is nothing."""
        everything = self.buckets[-1][1] if self.buckets else 0.0
        if not everything:
            return math.nan
        bound, below = 0.0, 0.0
        for le, n in self.buckets:
            if n >= q * everything:
                if math.isinf(le):
                    return bound
                return bound + (le - bound) * (q * everything - below) / (n - below) if n > below else le
            bound, below = le, n
        return bound


@dataclass
class Family:
    """Samples that belong together."""

    name: str
    type: str = "untyped"
    help: str = ""
    samples: List[Sample] = field(default_factory=list)


_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\s+([^\s]+)(?:\s+-?\d+)?\s*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\["\\n])*)"\s*(?:,|$)')
_ENDINGS = ("", "_total", "_bucket", "_sum", "_count", "_created")


def _labels(text: str) -> Dict[str, str]:
    labels: Dict[str, str] = {}
    at = 0
    while at < len(text) and text[at:].strip():
        found = _LABEL.match(text, at)
        if not found:
            raise ValueError(f"labels {text!r}")
        labels[found[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], found[2])
        at = found.end()
    return labels


class Metrics(Mapping[str, Family]):
    """A scrape: families by name (counters without ``_total``). Made of Prometheus' text format 0.0.4."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._families: Dict[str, Family] = {}
        last: Optional[Family] = None
        for number, line in enumerate(text.split("\n"), 1):
            try:
                last = self._line(line.strip(), last)
            except ValueError as error:
                raise ValueError(f"metrics, line {number}: {error}") from None

    def _named(self, name: str) -> Family:
        return self._families.setdefault(name, Family(name))

    def _line(self, line: str, last: Optional[Family]) -> Optional[Family]:
        if not line:
            return last
        if line[0] == "#":
            words = line.split(None, 3)
            if len(words) < 3 or words[1] not in ("HELP", "TYPE"):
                return last
            family = self._named(words[2].removesuffix("_total"))
            if words[1] == "HELP":
                family.help = words[3] if len(words) > 3 else ""
            else:
                family.type = words[3].strip() if len(words) > 3 else "untyped"
            return family
        found = _SAMPLE.fullmatch(line)
        if not found:
            raise ValueError(f"no sample: {line[:80]!r}")
        name = found[1]
        if last is None or not any(name == last.name + ending for ending in _ENDINGS):
            last = self._named(name.removesuffix("_total"))
        last.samples.append(Sample(name, _labels(found[2] or ""), float(found[3])))
        return last

    def __getitem__(self, name: str) -> Family:
        return self._families[name.removesuffix("_total")]

    def __iter__(self) -> Iterator[str]:
        return iter(self._families)

    def __len__(self) -> int:
        return len(self._families)

    def _fitting(self, name: str, labels: Mapping[str, str]) -> List[Sample]:
        family = self.get(name)
        return [s for s in (family.samples if family else []) if all(s.labels.get(k) == v for k, v in labels.items())]

    def value(self, name: str, **labels: str) -> float:
        """The sum of a counter's or gauge's samples that have these labels; NaN when there is none."""
        values = [s.value for s in self._fitting(name, labels)]
        return sum(values) if values else math.nan

    def histogram(self, name: str, **labels: str) -> Histogram:
        """A histogram: the series that have these labels, together. All of a family have the same bounds."""
        buckets: Dict[float, float] = {}
        total = count = 0.0
        for s in self._fitting(name, labels):
            if s.name.endswith("_bucket"):
                le = float(s.labels["le"])
                buckets[le] = buckets.get(le, 0.0) + s.value
            elif s.name.endswith("_sum"):
                total += s.value
            elif s.name.endswith("_count"):
                count += s.value
        return Histogram(tuple(sorted(buckets.items())), total, count)


# ---- the client ----


class Admin:
    """A daemon, by its unix socket, or with ``url`` by its door for the network (``ca_file``, and ``identity`` or ``token`` to say who we are).

    Use it as an async context manager. ``timeout`` (seconds) is for one answer.
    """

    def __init__(self, socket: Optional[Path] = None, *, url: Optional[str] = None, ca_file: Optional[Path] = None,
                 identity: Optional[Identity] = None, token: Optional[str] = None, timeout: float = 30.0) -> None:
        if socket is not None and url is not None:
            raise ValueError("socket or url, not both")
        if url is not None and urllib.parse.urlsplit(url).scheme != "https":
            raise ValueError("url: https only; a token must not go over a network in the clear")
        self._connect_to = None if url is not None else "unix:" + str(socket if socket is not None else SOCKET)
        self._base = url.rstrip("/") if url is not None else "http://localhost"
        self._token, self._timeout = token, timeout
        self._client = aio.Client(ca_file=ca_file, identity=identity, alt_svc=False, connect_timeout=timeout)

    async def __aenter__(self) -> "Admin":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc) -> None:
        await self._client.__aexit__(*exc)

    # ---- any request ----

    async def _begin(self, method: str, path: str, headers: Dict[str, str], body: Optional[bytes], timeout: float) -> aio.ClientResponse:
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["content-length"] = str(len(body))
        return await self._client.request(method, self._base + path, headers=headers, body=body, timeout=timeout, connect_to=self._connect_to)

    async def request(self, method: str, path: str, body: Optional[bytes] = None, *, content_type: str = "application/json",
                      accept: str = "application/json, application/problem+json", headers: Optional[Mapping[str, str]] = None,
                      timeout: Optional[float] = None) -> Tuple[aio.ClientResponse, bytes]:
        """Asks for anything below the interface, such as ``/v1/status``. Returns a good answer and its body; raises what is none."""
        fields = {"accept": accept, **({"content-type": content_type} if body is not None else {}), **(headers or {})}
        response = await self._begin(method, path, fields, body, self._timeout if timeout is None else timeout)
        data = await _read(response)
        if not 200 <= response.status < 300:
            raise _problem(response.status, response.header("content-type") or "", data)
        return response, data

    async def get(self, path: str) -> Any:
        """What is at a path, from JSON."""
        response, data = await self.request("GET", path)
        return _json(response, data)

    async def items(self, path: str, limit: Optional[int] = None) -> AsyncIterator[Any]:
        """The items of a list that comes by pages."""
        cursor, left = "", limit
        while left is None or left > 0:
            query = {"limit": str(PAGE if left is None else min(left, PAGE)), **({"cursor": cursor} if cursor else {})}
            page = await self.get(path + ("&" if "?" in path else "?") + urllib.parse.urlencode(query))
            items = page.get("items") if isinstance(page, dict) else None
            if not isinstance(items, list):
                raise Error(lib.CB_EPROTO, f"{path}: a page without items")
            for item in items if left is None else items[:left]:
                yield item
            left = None if left is None else left - len(items)
            cursor = page.get("next") or ""
            if not cursor or not items:
                return

    # ---- how it is ----

    async def status(self) -> Dict[str, Any]:
        """Version, process, revision, workers, totals."""
        return await self.get("/v1/status")

    async def whoami(self) -> Dict[str, Any]:
        """Who we are to the daemon, and what we may do there."""
        return await self.get("/v1/whoami")

    async def metrics(self) -> Metrics:
        """A scrape. ValueError when it is none."""
        _, data = await self.request("GET", "/metrics", accept="text/plain")
        return Metrics(data.decode(errors="replace"))

    async def events(self, *types: str, last_id: str = "", patience: float = 30.0) -> AsyncIterator[Event]:
        """What happens, as it happens, of these types, or of all. ``last_id``: begin behind that event, if it is kept; what was missed is
        told by an event ``gap``.

        A daemon ends streams when rights may have changed or a successor takes over: then it is asked again for what comes behind the last
        event. Error when it was not to be reached for ``patience`` seconds; 0: when the stream ends."""
        good: Optional[float] = None
        path = "/v1/events" + (f"?types={urllib.parse.quote(','.join(types), safe=',')}" if types else "")
        while True:
            headers = {"accept": "text/event-stream", **({"last-event-id": last_id} if last_id else {})}
            try:
                response = await self._begin("GET", path, headers, None, 0)
                if response.status != 200 or not (response.header("content-type") or "").startswith("text/event-stream"):
                    raise _problem(response.status, response.header("content-type") or "", await _read(response))
                try:
                    async for event in _parse_events(response, last_id):
                        good, last_id = time.monotonic(), event.id
                        if not types or event.type in (*types, "gap"):
                            yield event
                finally:
                    response.close()
                if not patience:
                    return
                good = time.monotonic()
            except Error as error:
                if error.code == lib.CB_ELIMIT or good is None or time.monotonic() - good >= patience:
                    raise
            await asyncio.sleep(AGAIN)

    # ---- configuration ----

    async def config(self, pointer: str = "") -> Config:
        """The configuration that runs, or the part at a JSON pointer (RFC 6901), and its revision for ``if_match``."""
        response, data = await self.request("GET", _config_path(pointer))
        return Config(_json(response, data), _of_etag(response.header("etag")))

    async def _change(self, method: str, path: str, body: Optional[bytes], if_match: Match, why: Optional[str], dry_run: bool, key: Optional[str],
                      content_type: str = "application/json") -> Change:
        query = {**({"dry_run": "true"} if dry_run else {}), **({"reason": why} if why else {})}
        headers = {}
        if if_match is not None:
            headers["if-match"] = "*" if if_match == "*" else f'"{if_match}"'
        if key is not None:
            headers["idempotency-key"] = key
        if query:
            path += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        response, data = await self.request(method, path, body, content_type=content_type, headers=headers)
        said = _json(response, data) if data else {}
        changed = said.get("changed", True) if isinstance(said, dict) else True
        return Change(_of_etag(response.header("etag")), changed is not False, dry_run)

    async def put(self, pointer: str, value: Any, *, if_match: Match = None, why: Optional[str] = None, dry_run: bool = False,
                  key: Optional[str] = None) -> Change:
        """Puts a value at a pointer; ``""`` is the whole configuration. ``if_match``: only when that revision is the current one, else
        :class:`Conflict`. ``key``: asked again with the same one within an hour, it is done once."""
        return await self._change("PUT", _config_path(pointer), json.dumps(value).encode(), if_match, why, dry_run, key)

    async def merge(self, patch: Any, pointer: str = "", *, if_match: Match = None, why: Optional[str] = None, dry_run: bool = False,
                    key: Optional[str] = None) -> Change:
        """Changes what a merge patch names (RFC 7396); None removes."""
        return await self._change("PATCH", _config_path(pointer), json.dumps(patch).encode(), if_match, why, dry_run, key,
                                  "application/merge-patch+json")

    async def patch(self, operations: List[Mapping[str, Any]], pointer: str = "", *, if_match: Match = None, why: Optional[str] = None,
                    dry_run: bool = False, key: Optional[str] = None) -> Change:
        """Changes by a JSON patch (RFC 6902): all of its operations, or none."""
        return await self._change("PATCH", _config_path(pointer), json.dumps(operations).encode(), if_match, why, dry_run, key,
                                  "application/json-patch+json")

    async def delete(self, pointer: str, *, if_match: Match = None, why: Optional[str] = None, dry_run: bool = False,
                     key: Optional[str] = None) -> Change:
        """Removes what is at a pointer."""
        return await self._change("DELETE", _config_path(pointer), None, if_match, why, dry_run, key)

    async def revisions(self, limit: Optional[int] = None) -> AsyncIterator[Revision]:
        """The revisions that are kept, newest first."""
        async for item in self.items("/v1/revisions", limit):
            yield _revision(item)

    async def revision(self, number: int) -> Revision:
        """One revision, with its document."""
        return _revision(await self.get(f"/v1/revisions/{int(number)}"))

    async def rollback(self, number: int, *, if_match: Match = None, why: Optional[str] = None, dry_run: bool = False,
                       key: Optional[str] = None) -> Change:
        """Makes a revision's document the current one again, as a new revision."""
        return await self._change("POST", f"/v1/revisions/{int(number)}/rollback", None, if_match, why, dry_run, key)

    # ---- operation ----

    async def _post(self, path: str, value: Any = None, method: str = "POST", timeout: Optional[float] = None) -> None:
        await self.request(method, path, None if value is None else json.dumps(value).encode(), timeout=timeout)

    async def reload(self) -> None:
        """Reads the configuration file, certificates and lists anew. InvalidConfig: nothing has changed."""
        await self._post("/v1/reload")

    async def drain(self, timeout: Optional[float] = None) -> None:
        """No requests any more; those that run may end within ``timeout`` seconds (None: as configured). Then the daemon ends."""
        await self._post("/v1/drain", {} if timeout is None else {"timeout_ms": int(timeout * 1000)})

    async def log_levels(self) -> str:
        """The levels of the log, such as ``info,quic=debug``."""
        said = await self.get("/v1/log")
        return said["levels"]

    async def set_log_levels(self, levels: str) -> None:
        await self._post("/v1/log", {"levels": levels}, "PUT")

    async def origin(self, group: str, number: int, *, out: bool) -> None:
        """Takes an origin of a group out, or puts it in again."""
        await self._post(f"/v1/pools/{urllib.parse.quote(group, safe='')}/origins/{int(number)}", {"out": out}, "PUT")


# ---- pieces ----


def _config_path(pointer: str) -> str:
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is no JSON pointer: it begins with /")
    return "/v1/config" + urllib.parse.quote(pointer, safe="/~")


def _json(response: aio.ClientResponse, data: bytes) -> Any:
    kind = response.header("content-type") or ""
    if not re.match(r"application/(?:[\w.-]+\+)?json\b", kind):
        raise Error(lib.CB_EPROTO, f"the answer is {kind or 'of no type'}, not JSON: is that an admin interface?")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Error(lib.CB_EPROTO, "the answer is not JSON, although it says so") from None


async def _read(response: aio.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response:
        data += chunk
        if len(data) > ANSWER_BYTES:
            response.close()
            raise Error(lib.CB_ELIMIT, f"the answer is larger than {ANSWER_BYTES >> 20} MiB")
    return bytes(data)


async def _lines(response: aio.ClientResponse) -> AsyncIterator[str]:
    """Lines as they come; they end by LF, CR or both. What is not complete at the end is dropped."""
    rest, after_cr = bytearray(), False
    async for chunk in response:
        if after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
        rest += chunk
        after_cr = rest.endswith(b"\r")
        *whole, last = re.split(rb"\r\n|\r|\n", bytes(rest))
        rest = bytearray(last)
        if len(rest) > ANSWER_BYTES:
            raise Error(lib.CB_ELIMIT, "an event that does not end")
        for line in whole:
            yield line.decode(errors="replace")


async def _parse_events(response: aio.ClientResponse, identifier: str) -> AsyncIterator[Event]:
    kind, data = "", []  # type: str, List[str]
    async for line in _lines(response):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                text = "\n".join(data)
                try:
                    yield Event(kind or "message", json.loads(text), identifier)
                except ValueError:
                    yield Event(kind or "message", text, identifier)
            kind, data = "", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            identifier = value
