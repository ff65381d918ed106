"""Model of jobs and claims in plain Python: no Redis, no time, no scripts.

A ``Job`` stands in one place and knows the run that holds it by identity: no other run passes for it, be it of an
earlier life of the same id. A ``Question`` has at most one answer that must be served and at most one run under way.
Each method is one change of state and returns what Redis must reply.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from dspyq.experiments.fence import ANY_STATE

Place = Literal["queue", "delayed", "leases", "dead"]
Verdict = Literal["hit", "join", "urge", "claim", "lost"]

SEQUENCES_PER_PRIORITY = 2**49


@dataclass(frozen=True)
class Asked:
    """The question of a message, in place of a request and its header."""

    input_hash: str
    refresh: bool = False
    is_claimed: bool = False
    queue: str = "program.variant"
    exposure: None = None
    seen: str = ANY_STATE
    sharer: str = ""
    tenant: str = ""


@dataclass(eq=False)
class Job:
    """An unfinished job; ``is_over`` says that its delay or lease ran out."""

    id: str
    message: str
    priority: int
    generation: int
    is_child: bool
    sequence: int = 0
    place: Place = "queue"
    is_over: bool = False
    run: Delivered | None = None
    run_count: int = 0
    lost: int = 0
    is_untold: bool = False

    @property
    def score(self) -> int:
        return self.priority * SEQUENCES_PER_PRIORITY + self.sequence

    def move(self, place: Place) -> None:
        self.place, self.is_over, self.is_untold = place, False, place == "dead"


class Delivered:
    """A run: the job it was given, by identity, and the tag it got."""

    def __init__(self, job: Job, tag: str) -> None:
        self.job, self.tag, self.number = job, tag, job.run_count

    @property
    def is_first(self) -> bool:
        return self.number == 1

    def __repr__(self) -> str:
        return self.tag


@dataclass
class Answer:
    """An answer that the cache serves while it is fresh and its result is there."""

    task_id: str
    payload: bytes
    is_fresh: bool = True


@dataclass
class Question:
    """The expected content of the alias.

    ``is_old``: the claim is older than its timeout. ``may_have_more``: others may wait that joined the run before its
    question was invalidated or taken over; they are not counted.
    """

    answer: Answer | None = None
    pending: str | None = None
    is_old: bool = False
    priority: int = 0
    joined: int = 0
    may_have_more: bool = False

    def begin(self, task_id: str, priority: int, *, may_have_more: bool = False) -> None:
        self.pending, self.is_old, self.priority, self.joined = task_id, False, priority, 0
        self.may_have_more = may_have_more

    def release(self) -> None:
        self.pending, self.joined = None, 0
        if self.answer and not self.answer.is_fresh:
            self.answer = None


@dataclass
class Model:
    """All jobs, questions and results."""

    jobs: dict[str, Job] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    questions: dict[str, Question] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    last_sequence: int = 0

    # Jobs

    def put(
        self, job_id: str, message: str, *, priority: int, delayed: bool, generation: int, is_child: bool = False
    ) -> bool:
        if is_child and job_id in self.done:
            return False
        job = self.jobs.get(job_id)
        if job is None:
            job = self.jobs[job_id] = Job(job_id, message, priority, generation, is_child)
        else:
            job.priority = min(job.priority, priority)
            if generation <= job.generation:
                return False
            job.message, job.generation = message, generation
            job.is_child = job.is_child or is_child
            job.run = None
        job.move("delayed" if delayed else "queue")
        return True

    def number(self, job_id: str, sequence: int) -> None:
        """A new job got its turn: behind all earlier ones of its priority, and for good."""
        job = self.jobs[job_id]
        if not job.sequence:
            assert sequence > self.last_sequence
            job.sequence = self.last_sequence = sequence

    @property
    def waiting(self) -> list[Job]:
        return sorted((job for job in self.jobs.values() if job.place == "queue"), key=lambda job: job.score)

    def take(self, tag: str) -> Delivered:
        job = self.waiting[0]
        job.run_count += 1
        job.run = Delivered(job, tag)
        job.move("leases")
        return job.run

    def holds(self, run: Delivered) -> bool:
        return self.jobs.get(run.job.id) is run.job and run.job.run is run

    def finish(self, run: Delivered) -> bool:
        if not self.holds(run):
            return False
        if run.job.is_child:
            self.done.add(run.job.id)
        del self.jobs[run.job.id]
        return True

    def give_back(self, run: Delivered, place: Place) -> bool:
        if not self.holds(run):
            return False
        run.job.run = None
        run.job.move(place)
        return True

    def renew(self, run: Delivered) -> bool:
        if not self.holds(run):
            return False
        run.job.move("leases")
        return True

    def sweep(self, max_deliveries: int) -> tuple[int, set[str]]:
        """Return how many jobs were due, and the ids of those that lost their lease."""
        over = [job for job in self.jobs.values() if job.is_over]
        due = [job for job in over if job.place == "delayed"]
        lost = [job for job in over if job.place == "leases"]
        for job in due:
            job.move("queue")
        for job in lost:
            job.lost += 1
            if job.lost < max_deliveries:
                job.move("queue")  # its run may still take it back
            else:
                job.run = None
                job.move("dead")
        return len(due), {job.id for job in lost}

    def end(self, job_id: str) -> str:
        job = self.jobs.pop(job_id, None)
        return job.message if job else ""

    def replay(self, job_id: str) -> bool:
        job = self.jobs.get(job_id)
        if job is None or job.place != "dead":
            return False
        job.lost = 0
        job.move("queue")
        return True

    @property
    def untold(self) -> set[str]:
        return {job.id for job in self.jobs.values() if job.is_untold}

    # Claims

    def claim(self, asked: Asked, task_id: str, priority: int) -> tuple[Verdict, str]:
        """A plain caller asks; the verdict and whose answer it gets."""
        question = self.questions[asked.input_hash]
        if hit := self._hit(question, task_id, refresh=asked.refresh):
            return self._counted("hits_redis", "hit", hit.task_id)
        if question.pending == task_id:
            return "claim", task_id  # asked again: counted already
        if question.pending and (not question.is_old or question.pending in self.jobs):
            question.joined += 1
            is_more_urgent = priority < question.priority
            question.priority = min(question.priority, priority)
            must_put = is_more_urgent or question.pending not in self.jobs
            return self._counted("joined", "urge" if must_put else "join", question.pending)
        question.begin(task_id, priority, may_have_more=task_id in self.jobs)
        return self._counted("misses", "claim", task_id)

    def look(self, asked: Asked, run: Delivered, *, counts: bool = False) -> tuple[Verdict, str]:
        """A worker asks before it computes: it waits only for a run that is leased."""
        question, task_id = self.questions[asked.input_hash], run.job.id
        if not run.is_first and b"SUCCESS" in self.results.get(task_id, b""):
            return "hit", task_id  # it was done already, but for saying so
        if not self.holds(run):
            return "lost", task_id
        if hit := self._hit(question, task_id, refresh=asked.refresh):
            return self._counted("hits_redis", "hit", hit.task_id, counts=counts)
        other = self.jobs.get(question.pending or "")
        if other and other is not run.job and other.place == "leases":
            return self._counted("joined", "join", other.id, counts=counts)
        if question.pending == task_id:
            return "claim", task_id
        question.begin(task_id, 0, may_have_more=not counts)
        return self._counted("misses", "claim", task_id, counts=counts)

    def answer(self, asked: Asked, run: Delivered, payload: bytes, *, is_served: bool) -> bool:
        if not self.holds(run):
            return False
        task_id, question = run.job.id, self.questions[asked.input_hash]
        self._store(task_id, payload)
        if question.answer and question.answer.task_id == task_id:
            question.answer.payload = payload
        elif question.pending == task_id:
            if is_served:
                question.answer = Answer(task_id, payload)
            question.release()
        return True

    def release(self, asked: Asked, task_id: str, run: Delivered | None = None) -> bool:
        if run and not self.holds(run):
            return False
        question = self.questions[asked.input_hash]
        if question.answer and question.answer.task_id == task_id:
            question.answer = None
        if question.pending == task_id:
            question.release()
        return True

    def withdraw(self, input_hash: str, task_id: str, *, is_own: bool) -> bool:
        question = self.questions[input_hash]
        if question.pending != task_id:
            return is_own
        if question.joined:
            question.joined -= 1
            return False
        if question.may_have_more and not is_own:
            return False
        question.release()
        return True

    def recall(self, input_hash: str, task_id: str) -> bool:
        """As if a caller had not asked, where no run has begun."""
        question, job = self.questions[input_hash], self.jobs.get(task_id)
        is_begun = job and (job.place not in {"queue", "delayed"} or job.lost)
        if question.pending != task_id or is_begun:
            return False
        if question.joined:
            question.joined -= 1
            self.counts["joined"] -= 1
        elif not question.may_have_more:
            question.release()
            self.counts["misses"] -= 1
            self.end(task_id)
        return True

    def invalidate(self, input_hash: str) -> bool:
        question = self.questions[input_hash]
        was_there = bool(question.answer or question.pending)
        self.questions[input_hash] = Question()
        return was_there

    def fail(self, task_id: str, payload: bytes) -> bool:
        """An error is stored as Celery stores it: never over an answer."""
        self.told.add(task_id)
        if b"SUCCESS" in self.results.get(task_id, b""):
            return False
        self._store(task_id, payload)
        return True

    def can_still_end(self, task_id: str) -> bool:
        """Return True if the callers of a task will be notified, if none of them asks anything any more."""
        young = any(question.pending == task_id and not question.is_old for question in self.questions.values())
        return task_id in self.told or task_id in self.jobs or young

    def _hit(self, question: Question, task_id: str, *, refresh: bool) -> Answer | None:
        answer = question.answer
        if answer is None or (refresh and answer.task_id != task_id):
            return None
        if answer.is_fresh and answer.task_id in self.results:
            return answer
        question.answer = None
        return None

    def _store(self, task_id: str, payload: bytes) -> None:
        self.results[task_id] = payload
        self.told.add(task_id)

    def _counted(self, counter: str, verdict: Verdict, task_id: str, *, counts: bool = True) -> tuple[Verdict, str]:
        self.counts[counter] += counts
        return verdict, task_id
