"""Metrics for Prometheus, with a registry per station."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from anomem.service.store.tables import Inspection

__all__ = ["Metrics"]


class Metrics:
    """Counters of a station."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._inspections = Counter(
            "anomem_inspections", "Recorded inspections.", ["model", "verdict"], registry=self.registry
        )
        self.requests = Counter(
            "anomem_http_requests", "Requests by method and status.", ["method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "anomem_http_request_seconds", "Seconds per request.", ["method"], registry=self.registry
        )
        self.queue = Gauge("anomem_queue", "Images that wait.", ["model"], registry=self.registry)

    def inspected(self, inspection: Inspection) -> None:
        """Count an inspection."""
        verdict = "error" if inspection.error else "anomalous" if inspection.anomalous else "normal"
        self._inspections.labels(str(inspection.model_id), verdict).inc()

    def text(self, waiting: dict[int, int]) -> bytes:
        """Return all metrics in Prometheus' text format."""
        for model_id, count in waiting.items():
            self.queue.labels(str(model_id)).set(count)
        return generate_latest(self.registry)
