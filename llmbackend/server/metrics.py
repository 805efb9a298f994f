"""Numbers for Prometheus: of calls as they end, and of the server's state when it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .. import usage
from ..backend import Backend, State
from ..errors import Forbidden
from ..tracing import Trace
from .replies import error_response

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

PATH = "/metrics"
MEDIA = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_OVERHEAD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5)
_TOKENS = {"prompt_tokens": "prompt", "completion_tokens": "completion", "embedded_tokens": "embedded"}


class Metrics:
    """Of one server process. Projects, keys and texts are in none of them: usage tells about those who may know."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter(
            "llmbackend_requests", "Calls, and attempts of jobs", ("operation", "outcome"), **options
        )
        self._latency = Histogram(
            "llmbackend_request_seconds", "How long they took", ("operation",), buckets=_SECONDS, **options
        )
        self._overhead = Histogram(
            "llmbackend_overhead_seconds",
            "Of that, the time in which no model was at work",
            ("operation",),
            buckets=_OVERHEAD,
            **options,
        )
        self._tokens = Counter("llmbackend_tokens", "Tokens read and written", ("model", "kind"), **options)
        self._refusals = Counter("llmbackend_refusals", "Requests that were refused", ("status",), **options)
        self._children: dict[tuple[str, ...], Any] = {}  # looking them up takes longer than counting
        self._state: State | None = None
        self._registry.register(self)
        backend.meter.listen(self._used)
        backend.meter.watch(self._finished)

    def _finished(self, trace: Trace, outcome: str, seconds: float) -> None:
        name = trace.operation
        found = self._children.get((name, outcome))
        if found is None:
            found = self._children[name, outcome] = (
                self._requests.labels(name, outcome),
                self._latency.labels(name),
                self._overhead.labels(name),
            )
        requests, latency, overhead = found
        requests.inc()
        latency.observe(seconds)
        overhead.observe(trace.overhead)

    def _used(self, used: usage.Used, counts: Mapping[str, float]) -> None:
        for name, kind in _TOKENS.items():
            if count := counts.get(name):
                place = used.model, kind
                if place not in self._children:
                    self._children[place] = self._tokens.labels(*place)
                self._children[place].inc(count)

    def refused(self, status: int) -> None:
        self._refusals.labels(str(status)).inc()

    async def text(self) -> bytes:
        self._state = await self._backend.state()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What the state tells: called while the text is made."""
        state = self._state
        if state is None:
            return
        yield _gauge("jobs", "Jobs that wait or are at work", ("type", "status"), state.jobs.items())
        yield _gauge(
            "job_age_seconds",
            "How long the oldest of them has waited",
            ("type", "status"),
            state.ages.items(),
        )
        yield _gauge("open_collections", "Collections that are open", (), [((), state.collections)])
        yield _gauge("disk_free_bytes", "What is free on the disk of DATA_DIR", (), [((), state.disk_free)])
        yield _gauge("disk_reserve_bytes", "What has to stay free there", (), [((), state.disk_reserve)])
        yield _gauge("cache_bytes", "The size of the cache of vectors", (), [((), state.cache_bytes)])
        cached = CounterMetricFamily(
            "llmbackend_cache_texts", "Texts to embed, by whether they were in the cache", labels=("cached",)
        )
        for label, count in (("yes", state.cache_hits), ("no", state.cache_misses)):
            cached.add_metric((label,), count)
        yield cached
        failures = CounterMetricFamily(
            "llmbackend_upstream_errors", "Failed attempts at model servers", labels=("server", "code")
        )
        for place, count in state.upstream_errors.items():
            failures.add_metric(place, count)
        yield failures
        limits = CounterMetricFamily("llmbackend_limits_reached", "Requests beyond a limit", labels=("what",))
        for what, count in state.limits.items():
            limits.add_metric((what,), count)
        yield limits
        parts = [((name,), float(told == "ok")) for name, told in state.parts.items()]
        yield _gauge("part_ok", "Whether a part works, as /health/ready tells", ("part",), parts)

    async def endpoint(self, request: Request) -> Response:
        """For the administrator only: they are about all projects."""
        if not request.scope["caller"].everywhere:
            return error_response(
                Forbidden("the metrics are the administrator's"), request.scope["request_id"]
            )
        return Response(await self.text(), media_type=MEDIA)

    async def _open(self, request: Request) -> Response:
        return Response(await self.text(), media_type=MEDIA)

    async def serve(self, host: str, port: int) -> None:
        """On a port of their own, where nobody needs a key, until cancelled."""
        app = Starlette(routes=[Route(PATH, self._open)])
        config = uvicorn.Config(
            app, host=host, port=port, log_level="warning", access_log=False, ws="none", lifespan="off"
        )
        await _Quiet(config).serve()


class _Quiet(uvicorn.Server):
    """uvicorn, which leaves the signals to the server of everything else."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def _gauge(
    name: str, about: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"llmbackend_{name}", about, labels=labels)
    for place, value in values:
        family.add_metric(place, value)
    return family
