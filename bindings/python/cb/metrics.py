"""Counters, gauges and histograms that Prometheus scrapes. See cb/metrics.h.

    metrics = cb.metrics.Registry()
    visits = metrics.counter("visits", "Pages served.", labels=["page"])
    took = metrics.histogram("serve_seconds", "Time to serve a page.", unit="seconds", decimals=9)
    visits.add(page="/")
    took.add(0.0021)
    print(metrics.render())

Values are numbers of the unit and are kept as integers of ``decimals`` places. Everything here may be used from any thread: each counts by itself.
"""

from __future__ import annotations

import threading
import time
from typing import Dict, List, Optional, Sequence, Union

from . import _Handle, _options, _slice_bytes, _text, check
from ._cb import ffi, lib

__all__ = ["Family", "Registry", "TEXT", "OPENMETRICS", "PROTOBUF", "content_type", "negotiate"]

TEXT: int = lib.CB_METRICS_TEXT
OPENMETRICS: int = lib.CB_METRICS_OPENMETRICS
PROTOBUF: int = lib.CB_METRICS_PROTOBUF

Number = Union[int, float]


def negotiate(accept: str) -> int:
    """The format that the value of an Accept field asks for."""
    data = accept.encode("latin-1")
    return lib.cb_metrics_negotiate((ffi.from_buffer("uint8_t[]", data), len(data)))


def content_type(format: int) -> str:
    return ffi.string(lib.cb_metrics_content_type(format)).decode()


def _values(keep: list, names: Sequence[str], labels: Dict[str, str]):
    """The slices of label values, in the family's order."""
    if set(labels) != set(names):
        raise ValueError(f"labels are {', '.join(names) or 'none'}, not {', '.join(labels) or 'none'}")
    slices = ffi.new("cb_slice[]", max(1, len(names)))
    for i, name in enumerate(names):
        data = str(labels[name]).encode()
        keep.append(ffi.from_buffer("uint8_t[]", data))
        slices[i].base, slices[i].len = keep[-1], len(data)
    return slices


class Family:
    """A family of metrics; made by :class:`Registry`."""

    def __init__(self, registry: "Registry", name: str, labels: Sequence[str], decimals: int, kind: int) -> None:
        self.name, self.labels = name, tuple(labels)
        self._registry, self._scale, self._kind = registry, 10 ** decimals, kind
        self._family = lib.cb_metrics_find(registry.pointer, name.encode())

    def _part(self, labels: Dict[str, str]):
        """What this thread counts with, for one set of labels."""
        series = self._registry._series()
        key = (self.name, *(labels.get(name) for name in self.labels), len(labels))
        if key not in series:
            keep: list = []
            kind = {lib.CB_METRIC_COUNTER: "counter", lib.CB_METRIC_GAUGE: "gauge", lib.CB_METRIC_HISTOGRAM: "histogram"}[self._kind]
            out = ffi.new(f"cb_{kind} **")
            check(getattr(lib, f"cb_meter_{kind}")(out, self._registry._meter(), self._family, _values(keep, self.labels, labels)))
            series[key] = out[0]
        return series[key]

    def add(self, value: Number = 1, **labels: str) -> None:
        """Counts, moves a gauge, or adds a value to a histogram."""
        whole = round(value * self._scale)
        if self._kind == lib.CB_METRIC_GAUGE:
            lib.cb_gauge_add(self._part(labels), whole)
        elif whole < 0:
            raise ValueError(f"{self.name}: {value} is negative")
        elif self._kind == lib.CB_METRIC_COUNTER:
            lib.cb_counter_add(self._part(labels), whole)
        else:
            lib.cb_histogram_add(self._part(labels), whole)

    def set(self, value: Number, **labels: str) -> None:
        """Sets a gauge: this thread's part of it."""
        if self._kind != lib.CB_METRIC_GAUGE:
            raise TypeError(f"{self.name} is not a gauge")
        lib.cb_gauge_set(self._part(labels), round(value * self._scale))

    def value(self, **labels: str) -> float:
        """What all threads have counted; of a histogram, how many values."""
        keep: list = []
        out = ffi.new("double *")
        check(lib.cb_metrics_value(self._registry.pointer, self.name.encode(), _values(keep, self.labels, labels), out))
        return out[0]


class Registry(_Handle):
    """A set of families."""

    def __init__(self, max_series: int = 0, idle: float = 0) -> None:
        opts = _options("cb_metrics_opts")
        opts.max_series, opts.idle_s = max_series, int(idle)
        out = ffi.new("cb_metrics **")
        check(lib.cb_metrics_new(out, opts))
        self._local = threading.local()
        super().__init__(out[0], lib.cb_metrics_unref)

    def _meter(self):
        if not hasattr(self._local, "meter"):
            out = ffi.new("cb_meter **")
            check(lib.cb_meter_new(out, self.pointer))
            self._local.meter, self._local.series = ffi.gc(out[0], lib.cb_meter_free), {}
        return self._local.meter

    def _series(self) -> dict:
        self._meter()
        return self._local.series

    def _define(self, kind: int, name: str, help: str, labels: Sequence[str], unit: Optional[str], decimals: int,
                buckets: Optional[Sequence[float]] = None, min: float = 0, max: float = 0, max_series: int = 0) -> Family:
        keep: List = []
        opts = _options("cb_metric_opts")
        opts.kind, opts.decimals, opts.max_series, opts.min, opts.max = kind, decimals, max_series, min, max
        opts.name, opts.help, opts.unit = _text(keep, name), _text(keep, help), _text(keep, unit)
        names = ffi.new("const char *[]", [_text(keep, label) for label in labels] or 1)
        opts.labels, opts.labels_len = names, len(labels)
        if buckets is not None:
            bounds = ffi.new("double[]", list(buckets) or 1)
            opts.bounds, opts.bounds_len = bounds, len(buckets)
        check(lib.cb_metrics_define(ffi.new("cb_metric **"), self.pointer, opts))
        return Family(self, name, labels, decimals, kind)

    def counter(self, name: str, help: str, labels: Sequence[str] = (), unit: Optional[str] = None, decimals: int = 0, max_series: int = 0) -> Family:
        """Only grows; shown with ``_total``."""
        return self._define(lib.CB_METRIC_COUNTER, name, help, labels, unit, decimals, max_series=max_series)

    def gauge(self, name: str, help: str, labels: Sequence[str] = (), unit: Optional[str] = None, decimals: int = 0, max_series: int = 0) -> Family:
        """Goes up and down; its value is the sum over the threads that set it."""
        return self._define(lib.CB_METRIC_GAUGE, name, help, labels, unit, decimals, max_series=max_series)

    def histogram(self, name: str, help: str, labels: Sequence[str] = (), unit: Optional[str] = None, decimals: int = 0,
                  buckets: Optional[Sequence[float]] = None, min: float = 0, max: float = 0, max_series: int = 0) -> Family:
        """How values are spread."""
        return self._define(lib.CB_METRIC_HISTOGRAM, name, help, labels, unit, decimals, buckets, min, max, max_series)

    def find(self, name: str, labels: Sequence[str] = (), decimals: int = 0, kind: int = lib.CB_METRIC_COUNTER) -> Family:
        """A family that is there already, such as one that libcb counts in itself (docs/metrics.md)."""
        if lib.cb_metrics_find(self.pointer, name.encode()) == ffi.NULL:
            raise KeyError(name)
        return Family(self, name, labels, decimals, kind)

    def render(self, format: int = TEXT) -> Union[str, bytes]:
        """The page that a scraper reads: text, or bytes for PROTOBUF."""
        pieces: List[bytes] = []
        handle = ffi.new_handle(pieces)
        check(lib.cb_metrics_render(self.pointer, format, int(time.time() * 1000), lib.cbpy_metrics_piece, handle))
        page = b"".join(pieces)
        return page if format == PROTOBUF else page.decode()


@ffi.def_extern(onerror=None, error=lib.CB_EUSER)
def cbpy_metrics_piece(piece, user):
    ffi.from_handle(user).append(_slice_bytes(piece))
    return 0
