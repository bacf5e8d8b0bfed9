"""What does the service count? Everything that ``/metrics`` tells Prometheus, with labels of bounded number."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.batching import Batch, Queue, Queues
from app.calls import Call
from app.loading import Service

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TOKENS = tuple(2**power for power in range(3, 16))


class Metrics:
    """The metrics of one service."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "dse_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "dse_request_seconds", "Seconds a request took.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self._stage_seconds = Histogram(
            "dse_stage_seconds",
            "Seconds a request spent in a stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch_tokens = Histogram(
            "dse_batch_tokens",
            "Tokens of a batch.",
            ["model"],
            buckets=_TOKENS,
            registry=self._registry,
        )
        self._batch_texts = Histogram(
            "dse_batch_texts", "Texts, or pairs, of a batch.", ["model"], buckets=_TOKENS[:8], registry=self._registry
        )
        self._registry.register(_State(service))
        ProcessCollector(registry=self._registry)
        for queue in service.queues.all:
            queue.on_batch = self._count_batches_of(queue)

    def answered(self, call: Call, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        for stage, taken in call.seconds.items():
            self._stage_seconds.labels(stage).observe(taken)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _count_batches_of(self, queue: Queue) -> "_BatchCounter":
        return _BatchCounter(self._batch_tokens.labels(queue.name), self._batch_texts.labels(queue.name))


class _BatchCounter:
    """Counts the batches of one queue."""

    def __init__(self, tokens: Histogram, texts: Histogram) -> None:
        self._tokens, self._texts = tokens, texts

    def __call__(self, batch: Batch) -> None:
        self._tokens.observe(batch.tokens)
        self._texts.observe(batch.rows)


class _State(Collector):
    """What is looked up when Prometheus asks."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """The queues and the index, as they are now."""
        yield from _queues(self._service.queues)
        index = self._service.index
        if index is not None:
            view = index.latest
            yield GaugeMetricFamily("dse_index_up", "1 if the index can be asked.", value=float(index.away is None))
            yield GaugeMetricFamily("dse_index_generation", "Number of the live generation.", value=int(view.name))
            yield GaugeMetricFamily("dse_index_documents", "Documents that are searched.", value=len(view))
            yield GaugeMetricFamily(
                "dse_index_changes_pending", "Changes not yet folded into the generation.", value=view.pending
            )


def _queues(queues: Queues) -> Iterable[Metric]:
    texts = GaugeMetricFamily("dse_queue_texts", "Texts, or pairs, that wait for a model.", labels=["model"])
    tokens = GaugeMetricFamily("dse_queue_tokens", "Tokens that wait for a model.", labels=["model"])
    up = GaugeMetricFamily("dse_worker_up", "1 if a model's worker answers.", labels=["model"])
    restarts = CounterMetricFamily("dse_worker_restarts", "Workers that died.", labels=["model"])
    dropped = CounterMetricFamily("dse_dropped_texts", "Texts that nobody waited for any more.", labels=["model"])
    for queue in queues.all:
        waiting = queue.waiting
        texts.add_metric([queue.name], waiting[0])
        tokens.add_metric([queue.name], waiting[1])
        up.add_metric([queue.name], float(queue.fault() is None))
        restarts.add_metric([queue.name], queue.restarts)
        dropped.add_metric([queue.name], queue.dropped)
    yield from (texts, tokens, up, restarts, dropped)
