"""A network in virtual time: hosts, links between them, NATs, and datagram protocols of your own on the hosts. See cb/sim.h.

    sim = cb.sim.Simulation(seed=1)
    near, far = sim.host("near", "10.0.0.1"), sim.host("far", "10.0.0.2")
    there, back = sim.connect(near, far, rate_bps=1_000_000, delay_us=10_000, loss=0.2)
    far.socket(7, lambda socket, data, source: socket.send(source, data))   # an echo
    near.socket(0, lambda socket, data, source: print(sim.now, data)).send("far:7", b"hello")
    sim.run()

Times are seconds of the simulation. One seed gives one run. What a callback raises ends the run and comes out of it.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Tuple

from . import _options, _text, check
from ._cb import ffi, lib
from .metrics import Registry

__all__ = ["Simulation", "Host", "Link", "Socket", "Nat", "Timer"]

Receiver = Callable[["Socket", bytes, str], Any]


def _filled(type_name: str, values: Dict[str, Any], keep: Optional[list] = None):
    opts = _options(type_name)
    known = {name for name, _ in ffi.typeof(type_name).fields} - {"size", "reserved"}
    for name, value in values.items():
        if name not in known:
            raise TypeError(f"{type_name} has no {name}: it has {', '.join(sorted(known))}")
        setattr(opts, name, _text(keep, value) if isinstance(value, str) else value)
    return opts


def _stats(type_name: str, get, pointer) -> Dict[str, int]:
    out = _options(type_name)
    check(get(pointer, out))
    return {name: getattr(out, name) for name, _ in ffi.typeof(type_name).fields if name not in ("size", "reserved")}


def _ns(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


class Simulation:
    """A world with a clock of its own. ``opts`` are the members of ``cb_sim_opts``; what happens in it is counted in ``metrics``."""

    def __init__(self, seed: int = 0, metrics: Optional[Registry] = None, **opts: int) -> None:
        out = ffi.new("cb_sim **")
        if metrics is not None:
            opts["metrics"] = metrics.pointer
        check(lib.cb_sim_new(out, _filled("cb_sim_opts", {"seed": seed, **opts})))
        self._pointer = ffi.gc(out[0], lib.cb_sim_free)
        self._kept: set = set()  # handles of callbacks that may still come
        self._timers: set = set()
        self._raised: Optional[BaseException] = None

    def close(self) -> None:
        """Frees it with everything in it: no host, link or socket of it may be used any more."""
        if self._pointer is not None:
            for timer in list(self._timers):
                timer.cancel()
            ffi.release(self._pointer)
            self._pointer = None

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def pointer(self):
        if self._pointer is None:
            raise ValueError("the simulation is closed")
        return self._pointer

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return lib.cb_sim_now(self.pointer) / 1e9

    @property
    def digest(self) -> int:
        """Equal digests, equal runs."""
        return lib.cb_sim_digest(self.pointer)

    def host(self, name: str, addresses: str) -> "Host":
        """A host with a comma list of addresses; its name resolves within the simulation."""
        return Host(self, name, addresses)

    def link(self, **opts: Any) -> "Link":
        """One direction of a line; ``opts`` are the members of ``cb_sim_link_opts``."""
        out = ffi.new("cb_sim_link **")
        check(lib.cb_sim_link_new(out, self.pointer, _filled("cb_sim_link_opts", opts)))
        return Link(self, out[0])

    def path(self, source: "Host", target: "Host", *links: "Link", from_address: Optional[str] = None) -> None:
        """The way from one host to another, in this direction."""
        keep: list = []
        array = ffi.new("cb_sim_link *[]", [link.pointer for link in links])
        check(lib.cb_sim_path(source.pointer, target.pointer, _text(keep, from_address), array, len(links)))

    def connect(self, a: "Host", b: "Host", **opts: Any) -> Tuple["Link", "Link"]:
        """Two links that are alike, there and back."""
        there, back = self.link(**opts), self.link(**opts)
        self.path(a, b, there)
        self.path(b, a, back)
        return there, back

    def at(self, seconds: float, call: Callable[[], Any]) -> None:
        """Calls at this time of the simulation."""
        handle = self._keep(call)
        try:
            check(lib.cb_sim_at(self.pointer, _ns(seconds), lib.cbpy_sim_at, handle))
        except BaseException:
            self._kept.discard(handle)
            raise

    def run(self) -> None:
        """Runs until nothing is left to happen."""
        self._run(lambda: lib.cb_sim_run(self.pointer))

    def run_until(self, seconds: float) -> None:
        """Runs until this time."""
        self._run(lambda: lib.cb_sim_run_until(self.pointer, _ns(seconds)))

    def stop(self) -> None:
        """From a callback: the run under way returns."""
        lib.cb_sim_stop(self.pointer)

    # ---- callbacks ----

    def _keep(self, call: Callable[..., Any]):
        handle = ffi.new_handle((self, call))
        self._kept.add(handle)
        return handle

    def _run(self, run: Callable[[], int]) -> None:
        rc = run()
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        check(rc)

    def _call(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except BaseException as error:  # it goes on in run()
            self._raised = self._raised or error
            self.stop()


class Host:
    """A host; it goes with its simulation."""

    def __init__(self, sim: Simulation, name: str, addresses: str) -> None:
        out = ffi.new("cb_sim_host **")
        check(lib.cb_sim_host_new(out, sim.pointer, name.encode(), addresses.encode()))
        self.sim, self.name, self._pointer = sim, name, out[0]

    @property
    def pointer(self):
        self.sim.pointer  # raises when it is closed
        return self._pointer

    def socket(self, port: int, receive: Receiver) -> "Socket":
        """A datagram socket; ``receive(socket, data, source)`` gets what comes. Port 0: any."""
        return Socket(self, port, receive)

    def timer(self, seconds: float, call: Callable[[], Any]) -> "Timer":
        """Calls once, after so long (in milliseconds' grain)."""
        return Timer(self, seconds, call)

    def add_address(self, address: str, first: bool = True) -> None:
        check(lib.cb_sim_host_add_address(self.pointer, address.encode(), first))

    def remove_address(self, address: str) -> None:
        check(lib.cb_sim_host_remove_address(self.pointer, address.encode()))

    def nat(self, address: str, idle_ms: int = 0) -> "Nat":
        """Puts a NAT with this public address in front of the host."""
        return Nat(self, address, idle_ms)

    def stats(self) -> Dict[str, int]:
        return _stats("cb_sim_host_stats", lib.cb_sim_host_stats_get, self.pointer)


class Link:
    """One direction of a line."""

    def __init__(self, sim: Simulation, pointer) -> None:
        self.sim, self._pointer = sim, pointer

    @property
    def pointer(self):
        self.sim.pointer
        return self._pointer

    def change(self, **opts: Any) -> None:
        """These options from now on; the others stay."""
        now = _options("cb_sim_link_opts")
        check(lib.cb_sim_link_get(self.pointer, now))
        new = _filled("cb_sim_link_opts", opts)
        for name in opts:
            setattr(now, name, getattr(new, name))
        check(lib.cb_sim_link_set(self.pointer, now))

    def down(self, down: bool = True) -> None:
        """Drops everything, or carries again."""
        lib.cb_sim_link_down(self.pointer, down)

    def stats(self) -> Dict[str, int]:
        return _stats("cb_sim_link_stats", lib.cb_sim_link_stats_get, self.pointer)

    def reset_stats(self) -> None:
        lib.cb_sim_link_stats_reset(self.pointer)


class Nat:
    """A NAT in front of a host."""

    def __init__(self, host: Host, address: str, idle_ms: int) -> None:
        keep: list = []
        out = ffi.new("cb_sim_nat **")
        opts = _filled("cb_sim_nat_opts", {"address": address, "idle_ms": idle_ms}, keep)
        check(lib.cb_sim_nat_new(out, host.pointer, opts))
        self.host, self._pointer = host, out[0]

    def rebind(self, address: Optional[str] = None) -> None:
        """Forgets every flow, and takes another public address if one is given."""
        self.host.pointer
        keep: list = []
        check(lib.cb_sim_nat_rebind(self._pointer, _text(keep, address)))

    @property
    def flows(self) -> int:
        self.host.pointer
        return lib.cb_sim_nat_flows(self._pointer)


class Socket:
    """A plain datagram socket."""

    def __init__(self, host: Host, port: int, receive: Receiver) -> None:
        self.host = host
        self._handle = host.sim._keep(lambda data, source: receive(self, data, source))
        out = ffi.new("cb_sim_socket **")
        try:
            check(lib.cb_sim_socket_new(out, host.pointer, port, lib.cbpy_sim_datagram, self._handle))
        except BaseException:
            host.sim._kept.discard(self._handle)
            raise
        self._pointer = out[0]
        self.port: int = lib.cb_sim_socket_port(self._pointer)

    def send(self, to: str, data: bytes, ecn: int = 0) -> None:
        """To "address:port" or "host:port"."""
        if self._pointer is None:
            raise ValueError("the socket is closed")
        self.host.pointer
        held = ffi.from_buffer("uint8_t[]", data)
        check(lib.cb_sim_socket_send(self._pointer, to.encode(), {"base": held, "len": len(held)}, ecn))

    def close(self) -> None:
        if self._pointer is not None and self.host.sim._pointer is not None:
            lib.cb_sim_socket_free(self._pointer)
            self.host.sim._kept.discard(self._handle)
        self._pointer = None


class Timer:
    """Calls once; cancel() when it is no longer wanted."""

    def __init__(self, host: Host, seconds: float, call: Callable[[], Any]) -> None:
        self.sim = host.sim
        self._handle = self.sim._keep(lambda: self._fire(call))
        out = ffi.new("cb_timer **")
        loop = lib.cb_sim_host_loop(host.pointer)
        try:
            check(lib.cb_timer_start(out, loop, max(0, round(seconds * 1000)), 0, lib.cbpy_sim_timer, self._handle))
        except BaseException:
            self.sim._kept.discard(self._handle)
            raise
        self._pointer = out[0]
        self.sim._timers.add(self)

    def _fire(self, call: Callable[[], Any]) -> None:
        self.cancel()
        call()

    def cancel(self) -> None:
        if self._pointer is not None and self.sim._pointer is not None:
            lib.cb_timer_free(self._pointer)
            self.sim._kept.discard(self._handle)
            self.sim._timers.discard(self)
        self._pointer = None


@ffi.def_extern()
def cbpy_sim_at(_sim, user) -> None:
    sim, call = ffi.from_handle(user)
    sim._kept.discard(user)
    sim._call(call)


@ffi.def_extern()
def cbpy_sim_timer(_loop, user) -> None:
    sim, call = ffi.from_handle(user)
    sim._call(call)


@ffi.def_extern()
def cbpy_sim_datagram(_socket, datagram, user) -> None:
    sim, call = ffi.from_handle(user)
    data = bytes(ffi.buffer(datagram.data.base, datagram.data.len)) if datagram.data.len else b""
    sim._call(call, data, ffi.string(getattr(datagram, "from")).decode())
