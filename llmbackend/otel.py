"""Reports calls as OpenTelemetry spans, by its conventions for generative AI: numbers and names, never content."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import __version__
from .errors import InvalidRequest
from .tracing import Trace

_NAMES = {"chat": "chat", "embed": "embeddings", "batch_chat": "chat", "batch_embed": "embeddings"}
"""Operation names of the conventions; other operations keep ours."""


def observer(*, export: bool) -> Callable[[Trace, str, float], None]:
    """Return a listener that makes a span of each ended call, with this process's tracer provider.

    With `export`, if there is no provider, one is made that sends spans to OTEL_EXPORTER_OTLP_ENDPOINT.
    Raises InvalidRequest if OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace as api

        if export and isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
            _export(api)
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError as error:
        raise InvalidRequest(f"OTEL needs OpenTelemetry: pip install 'llmbackend[otel]' ({error})") from error
    tracer = api.get_tracer("llmbackend", __version__)
    propagator = TraceContextTextMapPropagator()

    def ended(trace: Trace, outcome: str, seconds: float) -> None:
        end = time.time_ns()
        name = _NAMES.get(trace.operation, trace.operation)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": name,
            "gen_ai.usage.input_tokens": trace.tokens["prompt_tokens"],
            "gen_ai.usage.output_tokens": trace.tokens["completion_tokens"],
            "llmbackend.request_id": trace.request_id,
            "llmbackend.project": trace.caller.project,
            "llmbackend.overhead_ms": trace.overhead * 1000,
        }
        if trace.model:
            attributes["gen_ai.response.model"] = trace.model
        if trace.prompts_used:
            attributes["llmbackend.prompt"] = ", ".join(trace.prompts_used)
        if outcome != "ok":
            attributes["error.type"] = outcome
        parent = propagator.extract({"traceparent": trace.parent}) if trace.parent else None
        span = tracer.start_span(
            f"{name} {trace.model}".strip(),
            context=parent,
            kind=api.SpanKind.SERVER,
            attributes=attributes,
            start_time=end - int(seconds * 1e9),
        )
        if outcome not in ("ok", "left"):
            span.set_status(api.StatusCode.ERROR)
        if trace.steps is not None:
            steps_of(trace.steps, api.set_span_in_context(span), end - int(seconds * 1e9))
        span.end(end)

    def steps_of(step: Any, within: Any, first: int) -> None:
        """A span for each step of an agent's run, inside its parent's."""
        began = first + int(step.began * 1e9)
        name = {"agent": "invoke_agent", "tool": "execute_tool", "model": "chat"}.get(step.kind, "step")
        attributes: dict[str, Any] = {"gen_ai.operation.name": name, "llmbackend.tokens": step.tokens}
        about = {"agent": "gen_ai.agent.name", "tool": "gen_ai.tool.name", "model": "gen_ai.response.model"}
        if step.kind in about:
            attributes[about[step.kind]] = step.model or "" if step.kind == "model" else step.name
        if step.prompt:
            attributes["llmbackend.prompt"] = step.prompt
        span = tracer.start_span(f"{name} {step.name}", within, attributes=attributes, start_time=began)
        if step.error:
            span.set_status(api.StatusCode.ERROR)
        for one in step.steps:
            steps_of(one, api.set_span_in_context(span), first)
        span.end(began + int(step.seconds * 1e9))

    return ended


def _export(api: Any) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "llmbackend"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    api.set_tracer_provider(provider)
