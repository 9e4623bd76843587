"""Logs and traces: structlog lines on standard error, OpenTelemetry spans where an exporter is configured.

Bodies carry no trace context, so a trace is found by what it is about: every span about an event or a job, in whatever
process, belongs to the trace whose id is the first half of that event's id. Nothing is exported unless the standard
variable OTEL_TRACES_EXPORTER says how (`console`, or the name of an installed exporter such as `otlp`).
"""

import logging
import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Literal

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from events.errors import BadInput

_propagator = TraceContextTextMapPropagator()
tracer = trace.get_tracer("assay")


def configure_logging(level: str = "info", form: Literal["text", "json"] = "text") -> None:
    """Sends structlog lines of this level and above to standard error. Raises BadInput for an unknown level."""
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise BadInput(f"{level!r} is not a log level", hint="Use debug, info, warning, error or critical.")
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer(sort_keys=True)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if form == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _add_trace(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        line["trace"] = f"{span.trace_id:032x}"
        line["span"] = f"{span.span_id:016x}"
    return line


def configure_tracing(service: str, environment: Mapping[str, str]) -> TracerProvider | None:
    """Exports spans as OTEL_TRACES_EXPORTER says; without it, or with `none`, nothing is set up and None returned.

    The caller shuts the provider down at the end, so that the last spans get out. Raises BadInput when the
    exporter is not installed.
    """
    name = environment.get("OTEL_TRACES_EXPORTER", "none")
    if name in {"", "none"}:
        return None
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found:
        raise BadInput(
            f"there is no exporter {name!r} for traces",
            why="OTEL_TRACES_EXPORTER names it, and no installed package brings it",
            hint="Install its package (for otlp: opentelemetry-exporter-otlp), or unset the variable.",
        )
    # Standard output belongs to the answer of a command.
    exporter = ConsoleSpanExporter(out=sys.stderr) if name == "console" else found[0].load()()
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


def context_about(event: str) -> Context | None:
    """The parent context of all that is about this event or job (64 hexadecimal digits), None when there is none.

    The same in every process, without anything being sent.
    """
    if len(event) != 64:
        return None
    trace_id, span_id = int(event[:32], 16), int(event[32:48], 16)
    if not (trace_id and span_id):
        return None
    span = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    return trace.set_span_in_context(trace.NonRecordingSpan(span))


def traceparent() -> str:
    """The current span as a W3C `traceparent`, empty when there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent", "")


def link_to(parent: str) -> list[trace.Link]:
    """A link to the span of a `traceparent` that was stored, or none."""
    span = trace.get_current_span(_propagator.extract({"traceparent": parent})).get_span_context()
    return [trace.Link(span)] if parent and span.is_valid else []
