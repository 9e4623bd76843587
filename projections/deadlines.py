"""Deadlines of unfinished jobs, earliest first."""

import heapq
from collections.abc import Iterable, Mapping

from schemas.state import UNFINISHED, Job


def deadline_of(job: Job) -> int | None:
    """When the job's present situation runs out, in block time; None for a finished job."""
    return job.situation.deadline_ms if isinstance(job.situation, UNFINISHED) else None


class Deadlines:
    """A queue over ``jobs``, which its owner keeps up to date.

    An entry whose job has meanwhile another deadline is dropped when it comes up, so a change costs one push. What is
    answered depends on the jobs alone, not on the order in which they came.
    """

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self._jobs = jobs
        self._heap: list[tuple[int, str]] = []
        self.add(jobs)

    def add(self, job_ids: Iterable[str]) -> None:
        """Takes note of new or changed jobs."""
        for job_id in job_ids:
            if job_id in self._jobs and (deadline := deadline_of(self._jobs[job_id])) is not None:
                heapq.heappush(self._heap, (deadline, job_id))

    def _holds(self, entry: tuple[int, str]) -> bool:
        job = self._jobs.get(entry[1])
        return job is not None and deadline_of(job) == entry[0]

    def next_ms(self) -> int | None:
        """The earliest deadline."""
        while self._heap and not self._holds(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, time_ms: int, most: int) -> list[str]:
        """Ids of the first ``most`` jobs whose deadline is at or before ``time_ms``, by deadline, then id. They stay in
        the queue."""
        found: list[tuple[int, str]] = []
        while len(found) < most and self._heap and self._heap[0][0] <= time_ms:
            entry = heapq.heappop(self._heap)
            if self._holds(entry) and (not found or found[-1] != entry):
                found.append(entry)
        for entry in found:
            heapq.heappush(self._heap, entry)
        return [job_id for _, job_id in found]
