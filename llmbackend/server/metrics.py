"""Metrics for Prometheus: calls, counted as they end, and the server's state when scraped."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..backend import Backend
from ..errors import Forbidden
from ..health import State
from ..tracing import Trace
from .replies import error_response

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

PATH = "/metrics"
MEDIA = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_OVERHEAD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5)

_Family = TypeVar("_Family", GaugeMetricFamily, CounterMetricFamily)


class _Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # per bucket, not cumulative
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


class _Operation:
    """The numbers of one operation, plain because each call updates several."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds = _Histogram(_SECONDS)
        self.overhead = _Histogram(_OVERHEAD)


class Metrics:
    """The metrics of one server process. They name no projects, keys or texts; `usage` does, for those who may see it.

    Counted and collected on the core's event loop.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._registry = CollectorRegistry()
        self._operations: defaultdict[str, _Operation] = defaultdict(_Operation)
        self._refusals: Counter[int] = Counter()
        self._state: State | None = None
        self._registry.register(self)
        backend.meter.watch(self._finished)

    def _finished(self, trace: Trace, outcome: str, seconds: float) -> None:
        counted = self._operations[trace.operation]
        counted.outcomes[outcome] += 1
        counted.seconds.observe(seconds)
        counted.overhead.observe(trace.overhead)

    def refused(self, status: int) -> None:
        self._refusals[status] += 1

    async def text(self) -> bytes:
        self._state = await self._backend.state()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client while it renders the text."""
        state = self._state
        if state is None:
            return
        calls = [
            ((name, outcome), count)
            for name, counted in self._operations.items()
            for outcome, count in counted.outcomes.items()
        ]
        yield _counter("requests", "Calls, and attempts of jobs", ("operation", "outcome"), calls)
        latency = HistogramMetricFamily(
            "llmbackend_request_seconds", "How long they took", labels=("operation",)
        )
        overhead = HistogramMetricFamily(
            "llmbackend_overhead_seconds",
            "The part of it in which no model was working",
            labels=("operation",),
        )
        for name, counted in self._operations.items():
            latency.add_metric((name,), counted.seconds.buckets, counted.seconds.sum)
            overhead.add_metric((name,), counted.overhead.buckets, counted.overhead.sum)
        yield latency
        yield overhead
        yield _counter("tokens", "Tokens read and written", ("model", "kind"), state.tokens.items())
        refusals = [((str(status),), count) for status, count in self._refusals.items()]
        yield _counter("refusals", "Requests that were refused", ("status",), refusals)
        yield _gauge("jobs", "Jobs queued or running", ("type", "status"), state.jobs.items())
        yield _gauge(
            "job_age_seconds",
            "Age of the oldest of them",
            ("type", "status"),
            state.ages.items(),
        )
        yield _gauge("open_collections", "Collections that are open", (), [((), state.collections)])
        yield _gauge("disk_free_bytes", "Free bytes on DATA_DIR's disk", (), [((), state.disk_free)])
        yield _gauge("disk_reserve_bytes", "Bytes that must stay free there", (), [((), state.disk_reserve)])
        yield _gauge("cache_bytes", "Size of the cache of vectors", (), [((), state.cache_bytes)])
        cached = [(("yes",), state.cache_hits), (("no",), state.cache_misses)]
        yield _counter(
            "cache_texts", "Texts to embed, by whether they were in the cache", ("cached",), cached
        )
        failed = state.upstream_errors.items()
        yield _counter("upstream_errors", "Failed attempts at model servers", ("server", "code"), failed)
        reached = [((what,), count) for what, count in state.limits.items()]
        yield _counter("limits_reached", "Requests beyond a limit", ("what",), reached)
        parts = [((name,), float(told == "ok")) for name, told in state.parts.items()]
        yield _gauge("part_ok", "Whether a part works, as /health/ready tells", ("part",), parts)

    async def endpoint(self, request: Request) -> Response:
        """The scrape on the main port; for the administrator only, because metrics cover all projects."""
        if not request.scope["caller"].everywhere:
            return error_response(
                Forbidden("only the administrator may read the metrics"), request.scope["request_id"]
            )
        return Response(await self.text(), media_type=MEDIA)

    async def _open(self, request: Request) -> Response:
        return Response(await self.text(), media_type=MEDIA)

    async def serve(self, host: str, port: int) -> None:
        """Serve the metrics on their own port, without keys, until cancelled."""
        app = Starlette(routes=[Route(PATH, self._open)])
        config = uvicorn.Config(
            app, host=host, port=port, log_level="warning", access_log=False, ws="none", lifespan="off"
        )
        await _Quiet(config).serve()


class _Quiet(uvicorn.Server):
    """uvicorn without signal handlers, which are the main server's."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def _gauge(
    name: str, about: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    return _filled(GaugeMetricFamily(f"llmbackend_{name}", about, labels=labels), values)


def _counter(
    name: str, about: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> CounterMetricFamily:
    return _filled(CounterMetricFamily(f"llmbackend_{name}", about, labels=labels), values)


def _filled(family: _Family, values: Iterable[tuple[Sequence[str], float]]) -> _Family:
    for place, value in values:
        family.add_metric(place, value)
    return family
