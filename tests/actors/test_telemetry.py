"""Logs and traces."""

import json
from collections.abc import Iterator

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from actors import telemetry
from events.errors import BadInput

EVENT = "0af7651916cd43dd8448eb211c80319cb7ad6b7169203331" + "0" * 16


@pytest.fixture(autouse=True)
def _unchanged() -> Iterator[None]:
    """Leaves the process's logging as it was."""
    yield
    structlog.reset_defaults()


def test_lines_go_to_standard_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object per line with level, time and what was bound; nothing on standard output."""
    telemetry.configure_logging("info", "json")
    log = structlog.get_logger().bind(actor="miner")
    log.debug("not shown")
    log.info("said", nonce=4)
    written = capsys.readouterr()
    line = json.loads(written.err)
    assert written.out == ""
    assert (line["event"], line["actor"], line["nonce"], line["level"]) == ("said", "miner", 4, "info")
    assert line["timestamp"].endswith("Z")


def test_a_line_names_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """Inside a span about an event, the line carries the trace that every process derives from the event's id."""
    telemetry.configure_logging("info", "json")
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("decide", context=telemetry.context_about(EVENT)):
        structlog.get_logger().info("decided")
    line = json.loads(capsys.readouterr().err)
    assert line["trace"] == EVENT[:32]
    assert len(line["span"]) == 16


def test_text_lines_have_no_colour_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard error that is a file gets no escape codes, and an exception its traceback."""
    telemetry.configure_logging("warning")
    try:
        raise ValueError("spoiled")
    except ValueError:
        structlog.get_logger().exception("it failed")
    written = capsys.readouterr().err
    assert "\x1b" not in written
    assert "ValueError: spoiled" in written


def test_an_unknown_level_is_refused() -> None:
    """The message lists the levels there are."""
    with pytest.raises(BadInput, match="loud") as caught:
        telemetry.configure_logging("loud")
    assert "debug" in caught.value.hint


@pytest.mark.parametrize("environment", [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": ""}])
def test_nothing_is_exported_unless_asked_for(environment: dict[str, str]) -> None:
    """Without the variable no provider is set up, so no thread and no connection is made."""
    assert telemetry.configure_tracing("miner", environment) is None


def test_an_exporter_that_is_not_installed_is_named() -> None:
    """It is an error at the start, not silence."""
    with pytest.raises(BadInput, match="carrier-pigeon"):
        telemetry.configure_tracing("miner", {"OTEL_TRACES_EXPORTER": "carrier-pigeon"})


def test_spans_are_exported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With `console` a finished span is written to standard error with its service and its trace."""
    monkeypatch.setattr(telemetry.trace, "set_tracer_provider", lambda provider: None)
    provider = telemetry.configure_tracing("miner", {"OTEL_TRACES_EXPORTER": "console"})
    assert provider is not None
    with provider.get_tracer("test").start_as_current_span("decide", context=telemetry.context_about(EVENT)):
        pass
    provider.shutdown()
    written = capsys.readouterr()
    assert '"service.name": "miner"' in written.err
    assert f"0x{EVENT[:32]}" in written.err
    assert written.out == ""


@pytest.mark.parametrize("about", ["", "short", "0" * 64])
def test_what_is_about_nothing_has_no_trace(about: str) -> None:
    """Only an id gives a context."""
    assert telemetry.context_about(about) is None


def test_a_stored_traceparent_links_back() -> None:
    """The span that said something is found again from the outbox row; outside of spans there is none."""
    assert telemetry.traceparent() == ""
    assert telemetry.link_to("") == []
    assert telemetry.link_to("nonsense") == []
    with TracerProvider().get_tracer("test").start_as_current_span("decide") as span:
        stored = telemetry.traceparent()
    (link,) = telemetry.link_to(stored)
    assert link.context.span_id == span.get_span_context().span_id
