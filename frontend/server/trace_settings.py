"""How traces are sent, as the variables of OpenTelemetry's SDK say."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast

from opentelemetry.util.re import parse_env_headers

from frontend.errors import StartupError

Compression = Literal["gzip", "deflate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """Times are in seconds. The defaults are those of OpenTelemetry's specification.

    `max_waiting` and `batch_size` are spans: how many wait at most, and how many are sent before `delay_s` is over.
    Without `tls` the system's certificates are trusted.
    """

    headers: Mapping[str, str]
    timeout_s: float
    compression: Compression | None
    tls: ssl.SSLContext | None
    delay_s: float
    max_waiting: int
    batch_size: int

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Raises StartupError with the name of a variable that is wrong."""
        return cls(
            headers=parse_env_headers(_exporters(environ, "HEADERS"), liberal=True),
            timeout_s=_positive("OTEL_EXPORTER_OTLP_TIMEOUT", _exporters(environ, "TIMEOUT"), 10),
            compression=_compression(_exporters(environ, "COMPRESSION")),
            tls=_tls(environ),
            delay_s=_positive("OTEL_BSP_SCHEDULE_DELAY", environ.get("OTEL_BSP_SCHEDULE_DELAY"), 5000) / 1000,
            max_waiting=int(_positive("OTEL_BSP_MAX_QUEUE_SIZE", environ.get("OTEL_BSP_MAX_QUEUE_SIZE"), 2048)),
            batch_size=int(
                _positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), 512)
            ),
        )


def _exporters(environ: Mapping[str, str], name: str) -> str:
    """A variable of the exporter: that for traces, or the one for everything."""
    return environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""


def _positive(name: str, given: str | None, default: float) -> float:
    try:
        found = float(given or default)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise StartupError(f"{name} is {given!r}; accepted: a number above 0")
    return found


def _compression(given: str) -> Compression | None:
    named = given.strip().lower()
    if named not in ("", "none", "gzip", "deflate"):
        raise StartupError(f"OTEL_EXPORTER_OTLP_COMPRESSION is {given!r}; accepted: none, gzip, deflate")
    return cast(Compression, named) if named in ("gzip", "deflate") else None


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    trusted, own, key = (_exporters(environ, name) for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"))
    if not trusted and not own:
        return None
    try:
        context = ssl.create_default_context(cafile=trusted or None)
        if own:
            context.load_cert_chain(own, key or None, "")
    except OSError as exc:
        files = ", ".join(filter(None, (trusted, own, key)))
        raise StartupError(
            f"OTEL_EXPORTER_OTLP_...: cannot use the certificates {files}: {exc.strerror or exc}"
        ) from exc
    return context
