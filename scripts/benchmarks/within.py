"""What does a search cost without HTTP? The same service, asked by threads of this process, with the same batching."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from app.loading import Service
from app.retriever import HeadScorer, Retriever
from scripts.benchmarks.client import Answered
from scripts.benchmarks.load import Turn
from scripts.benchmarks.workloads import HITS
from scripts.console import BadInput


class Within:
    """A service in this process."""

    name = "in process"

    def __init__(self, service: Service, texts: Sequence[str], depth: int) -> None:
        if service.index is None:
            raise BadInput("there is nothing to search: give --index")
        self._service, self._index, self._texts, self._depth = service, service.index, texts, depth

    def turn(self, kind: str, clients: int, seconds: float) -> Turn:
        """Search for so long, in so many threads."""
        end = time.perf_counter() + seconds
        student = self._service.searching
        scorer = HeadScorer(student.head, student.score)

        def client(number: int) -> list[Answered]:
            answered, place = [], number * len(self._texts) // clients
            while (began := time.perf_counter()) < end:
                retriever = Retriever(student.encoder, self._index.view())
                (query,) = retriever.queries([self._texts[place % len(self._texts)]])
                retriever.search(query, HITS, self._depth, scorer)
                answered.append(Answered(began, time.perf_counter() - began, 200))
                place += 1
            return answered

        began, computed = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(clients) as threads:
            answered = [each for part in threads.map(client, range(clients)) for each in part]
        return Turn(answered, time.perf_counter() - began, time.process_time() - computed, None)
