# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures of the server for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """Figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "prithvi_http_requests_total", "Requests.", ["method", "path", "status"], registry=self.registry
        )
        self.received = Counter("prithvi_frame_bytes_total", "Bytes of frames received.", registry=self.registry)
        self.refused = Counter(
            "prithvi_jobs_refused_total", "Jobs refused because the queue was full.", registry=self.registry
        )
        self._jobs = Counter("prithvi_jobs_total", "Finished jobs.", ["status"], registry=self.registry)
        self._seconds = Histogram(
            "prithvi_job_seconds", "Seconds that successful jobs ran.", buckets=_SECONDS, registry=self.registry
        )
        for status in ("succeeded", "failed", "cancelled"):
            self._jobs.labels(status)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a figure that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def finish(self, status: str, seconds: float) -> None:
        """Count a job that has ended."""
        self._jobs.labels(status).inc()
        if status == "succeeded":
            self._seconds.observe(seconds)

    def text(self) -> bytes:
        """Give all figures as Prometheus reads them."""
        return generate_latest(self.registry)
