# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Jobs: their folders, their queue, and the threads that fetch their frames and have them mapped.

Every job is a folder with its record, its frames until it is finished, and its results afterwards. A server that
starts in the same folder goes on with the jobs that are not finished, at the strip where they were.
"""

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prithvi_hf.disk import check_writable_folder, is_disk_full
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.serving.errors import ApiError, TextError
from prithvi_hf.serving.fetch import Fetcher
from prithvi_hf.serving.metrics import Metrics
from prithvi_hf.serving.results import RESULT_FILES, RESULTS
from prithvi_hf.serving.settings import Settings
from prithvi_hf.serving.uploads import name_frame
from prithvi_hf.serving.worker import Task, Worker, WorkerError


logger = logging.getLogger("uvicorn.error")

UNFINISHED = ("fetching", "queued", "running")
FINISHED = ("succeeded", "failed", "cancelled")
_RECORD = "job.json"
_FETCHERS = 2
_MOST_ATTEMPTS = 3
_END_SECONDS = 5.0  # for the process of the model, which has nothing to do by then
_SWEEP_SECONDS = 30.0
_RETRY_SECONDS = (5, 60)  # what `Retry-After` says, at least and at most


@dataclass
class Job:
    """A job, as its record on disk has it."""

    id: str
    names: list[str]  # what the client calls the frames
    options: dict[str, Any]
    status: str = "queued"
    created: float = 0.0  # seconds since 1970, as the next two
    started: float | None = None
    finished: float | None = None
    sizes: list[int] = field(default_factory=list)  # bytes of the frames that are there
    urls: list[str] = field(default_factory=list)  # of frames that are still to be fetched
    error: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    attempts: int = 0  # how often it was begun
    seconds: float = 0.0  # it has run in earlier attempts

    def __post_init__(self) -> None:
        self.progress = (0, 0)  # windows that are done, and all; not in the record
        self.is_cancelled = False

    @property
    def files(self) -> list[str]:
        """Names of the frames in its folder."""
        return [name_frame(number) for number in range(1, len(self.names) + 1)]


class JobManager:
    """All jobs of a server.

    Args:
        settings: Of the server.
        check: Refuses frames that are not a scene for the model, before they wait: files, labels and options.

    Raises:
        OSError: If the folder cannot be written, or another server has it.
    """

    def __init__(self, settings: Settings, check: Callable[[list[Path], list[str], dict[str, Any]], object]) -> None:
        self.settings, self.limits = settings, settings.limits
        self.worker = Worker(settings)
        self.fetcher = Fetcher(settings.allow_url, settings.allow_private_host)
        self.metrics = Metrics()
        self.is_stopping = False
        self._check = check
        self._jobs: dict[str, Job] = {}  # in the order in which they came
        self._receiving = 0
        self._changed = threading.Condition()
        self._hand_back = False
        self._running: Job | None = None
        self._recent: list[float] = []  # seconds of the last jobs, for Retry-After

        check_writable_folder(settings.work_dir, "--work_dir")
        settings.work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = FileLock(settings.work_dir / "server.lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise OSError(
                f"Expected --work_dir {settings.work_dir} to be of this server alone, found that another one has it. "
                "Stop that one, or choose another folder."
            ) from error
        self._incoming, self._folder = settings.work_dir / "incoming", settings.work_dir / "jobs"
        shutil.rmtree(self._incoming, ignore_errors=True)
        for folder in (self._incoming, self._folder):
            folder.mkdir(exist_ok=True, mode=0o700)
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetcher")
        self._runner = threading.Thread(target=self._run_jobs, name="job runner", daemon=True)

    def start(self) -> None:
        """Load the model, take up the jobs that the folder holds, and begin.

        Raises:
            WorkerError: If the model cannot be loaded.
        """
        self.worker.start()
        found = []
        for folder in self._folder.iterdir():
            try:
                record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
                known = {one.name for one in fields(Job)}
                found.append(Job(**{name: value for name, value in record.items() if name in known}))
            except (OSError, ValueError, TypeError) as error:
                logger.warning("The folder %s holds no job that can be read (%s) and is removed.", folder, error)
                shutil.rmtree(folder, ignore_errors=True)
        for job in sorted(found, key=lambda job: job.created):
            self._jobs[job.id] = job
            if job.status in UNFINISHED:
                job.status = "fetching" if job.urls else "queued"
                if job.attempts >= _MOST_ATTEMPTS:  # it may be what ended the server
                    self._finish(
                        job,
                        "failed",
                        ApiError(
                            500,
                            "a job that can be finished",
                            f"that the server ended {job.attempts} times while it ran",
                            "Try a smaller scene.",
                        ),
                    )
                elif job.urls:
                    self._fetchers.submit(self._fetch, job)
        if waiting := sum(job.status in UNFINISHED for job in self._jobs.values()):
            logger.info("%d unfinished jobs of an earlier server go on.", waiting)
        self._runner.start()

    @property
    def is_ready(self) -> bool:
        """Whether jobs are taken and the model is there."""
        return not self.is_stopping and self.worker.is_alive

    def count(self) -> tuple[int, int]:
        """Count the jobs that wait, and those that run."""
        with self._changed:
            running = sum(job.status == "running" for job in self._jobs.values())
            return self._receiving + sum(job.status in UNFINISHED for job in self._jobs.values()) - running, running

    @contextmanager
    def receive(self) -> Iterator[Path]:
        """Keep a place in the queue while a request is received, and lend a folder for its files.

        Raises:
            ApiError: If the queue is full or the server is stopping.
        """
        with self._changed:
            waiting = self.count()[0]
            if self.is_stopping:
                raise ApiError(
                    503, "a server that takes jobs", "one that is stopping", "Try again in a while.", retry_after=30
                )
            if waiting >= self.limits.max_queue:
                self.metrics.refused.inc()
                mean = sum(self._recent) / len(self._recent) if self._recent else 10.0
                raise ApiError(
                    429,
                    f"fewer than {self.limits.max_queue:g} jobs that wait",
                    f"{waiting}",
                    "Try again when Retry-After says.",
                    retry_after=int(min(max(mean, _RETRY_SECONDS[0]), _RETRY_SECONDS[1])),
                )
            self._receiving += 1
        folder = self._incoming / secrets.token_hex(16)
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            with self._changed:
                self._receiving -= 1
            shutil.rmtree(folder, ignore_errors=True)

    def submit(self, folder: Path, names: list[str], options: dict[str, Any], urls: list[str] | None = None) -> Job:
        """Make a job of a folder that `receive` lent; frames that are there are checked first.

        Raises:
            ApiError: If the frames are not a scene for this model.
        """
        job = Job(folder.name, names, options, created=time.time(), urls=list(urls or ()))
        job.status = "fetching" if urls else "queued"
        if not urls:
            paths = [folder / file for file in job.files]
            job.sizes = [path.stat().st_size for path in paths]
            self._check(paths, names, options)
            self.metrics.received.inc(sum(job.sizes))
        self._write(job, folder)
        with self._changed:
            folder.rename(self._folder / job.id)
            self._jobs[job.id] = job
            self._changed.notify_all()
        if urls:
            self._fetchers.submit(self._fetch, job)
        return job

    def get(self, job_id: str) -> Job:
        """Give a job.

        Raises:
            ApiError: If there is none of this id.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise ApiError(
                404, "the id of a job", "one that is unknown or whose job was deleted", "Ask for another job."
            )
        return job

    def position(self, job: Job) -> int | None:
        """Count the jobs before one that waits."""
        with self._changed:
            waiting = [one.id for one in self._jobs.values() if one.status in ("queued", "fetching")]
            return waiting.index(job.id) if job.id in waiting else None

    def find_result(self, job: Job, name: str) -> Path | None:
        """Find a result of a job, None where there is none."""
        path = self._folder / job.id / RESULTS / RESULT_FILES[name].name
        return path if job.status == "succeeded" and path.is_file() else None

    def expires(self, job: Job) -> float | None:
        """Give the time at which a finished job is deleted at the latest."""
        return None if job.finished is None else job.finished + 3600 * self.limits.keep_hours

    def remove(self, job: Job) -> None:
        """Cancel a job that is not finished, or delete one that is."""
        with self._changed:
            if job.status in FINISHED:
                self._delete(job)
            elif job.status == "running":
                job.is_cancelled = True  # its thread looks at it all the time
            else:
                job.is_cancelled = True
                self._finish(job, "cancelled")

    def close(self, grace: float, hurry: threading.Event | None = None) -> None:
        """Stop: let the job that runs go on for a while, then hand it back to the folder, for the next server.

        Args:
            grace: Seconds for the job that runs.
            hurry: Set to hand it back at once.
        """
        deadline = time.monotonic() + grace
        with self._changed:
            self.is_stopping = True
            self._changed.notify_all()
            while self._running is not None and time.monotonic() < deadline and not (hurry and hurry.is_set()):
                self._changed.wait(0.2)
            self._hand_back = True
            waiting = self._running is not None
        if waiting:
            logger.info("The job that runs is handed back: the next server in %s goes on.", self.settings.work_dir)
        self._fetchers.shutdown(cancel_futures=True)
        if self._runner.is_alive():
            self._runner.join()
        self.worker.close(_END_SECONDS)
        self._lock.release()

    def sweep(self) -> None:
        """Delete finished jobs that are too old or too many."""
        with self._changed:
            done = sorted((job for job in self._jobs.values() if job.finished), key=lambda job: job.finished or 0)
            too_many = max(0, len(done) - int(self.limits.keep_results))
            for number, job in enumerate(done):
                if number < too_many or (self.expires(job) or 0) < time.time():
                    self._delete(job)

    def _run_jobs(self) -> None:
        """Have one job after the other mapped: what the thread runs."""
        swept = 0.0
        while True:
            if time.monotonic() - swept > _SWEEP_SECONDS:
                self.sweep()
                swept = time.monotonic()
            if not (self.worker.is_alive or self.is_stopping):  # /health/ready would keep the jobs away that start it
                try:
                    self.worker.start()
                except WorkerError as error:
                    logger.error("The model cannot be loaded again: %s", error)
            with self._changed:
                if self.is_stopping:
                    return
                job = next((job for job in self._jobs.values() if job.status == "queued"), None)
                if job is None:
                    self._changed.wait(_SWEEP_SECONDS)
                    continue
                self._running = job
                job.status, job.started, job.attempts = "running", job.started or time.time(), job.attempts + 1
            try:
                self._run(job)
            except Exception:
                logger.exception("The job %s could not be run because of a fault of the program.", job.id)
                self._finish(job, "failed", ApiError(500, "a map", "a fault of the server", "Tell its operator."))
            finally:
                with self._changed:
                    self._running = None
                    self._changed.notify_all()

    def _run(self, job: Job) -> None:
        """Have one job mapped."""
        begin = time.monotonic()

        def should_stop() -> str | None:
            """Say why the job has to stop, if it has to."""
            if job.is_cancelled:
                return "cancelled"
            if self._hand_back:
                return "handed back"
            return "too long" if job.seconds + time.monotonic() - begin > self.limits.job_timeout else None

        def tell(done: int, total: int) -> None:
            """Note the progress."""
            job.progress = (done, total)

        self._write(job)
        task = Task(str(self._folder / job.id), job.files, job.names, job.options)
        try:
            outcome = self.worker.run(task, tell, should_stop)
        except WorkerError as error:
            logger.error("The model cannot be loaded again: %s", error)
            self._finish(job, "failed", TextError(500, "The model of this server cannot be loaded at the moment."))
            return
        job.seconds += time.monotonic() - begin
        if job.is_cancelled:
            self._finish(job, "cancelled")
        elif outcome.status == "done":
            job.summary = outcome.content
            self._recent = [*self._recent[-9:], job.seconds]
            self._finish(job, "succeeded")
        elif outcome.status == "failed":
            status, message = outcome.content
            self._finish(job, "failed", TextError(status, message))
        elif outcome.content == "handed back":
            with self._changed:
                job.status, job.attempts = "queued", job.attempts - 1  # it was not the job that ended the server
                self._write(job)
        else:
            self._finish(
                job,
                "failed",
                ApiError(
                    408,
                    f"a map within {self.limits.job_timeout:g} seconds",
                    f"{job.progress[0]:,} of {job.progress[1]:,} windows done by then",
                    "Cut out a smaller scene, or ask for less overlap.",
                ),
            )

    def _fetch(self, job: Job) -> None:
        """Fetch the frames of a job: what a thread runs."""
        folder, left = self._folder / job.id, self.limits.upload_bytes
        deadline = time.monotonic() + self.limits.upload_timeout

        def should_stop() -> bool:
            return job.is_cancelled or self.is_stopping

        try:
            for url, file in zip(job.urls, job.files, strict=True):
                if should_stop():
                    raise InterruptedError
                seconds = max(deadline - time.monotonic(), 0.0)
                size = self.fetcher.fetch(url, folder / file, left, seconds, should_stop)
                left -= size
                job.sizes.append(size)
            self._check([folder / file for file in job.files], job.names, job.options)
        except InterruptedError:
            job.sizes.clear()  # it is fetched again by the next server, if it was not cancelled
            return
        except ApiError as error:
            self._finish(job, "failed", error)
            return
        except OSError as error:
            if not job.is_cancelled:  # then the folder may be gone
                self._finish(job, "failed", explain_os_error(error))
            return
        except Exception:
            logger.exception("The frames of job %s could not be fetched because of a fault of the program.", job.id)
            self._finish(job, "failed", ApiError(500, "frames", "a fault of the server", "Tell its operator."))
            return
        self.metrics.received.inc(sum(job.sizes))
        with self._changed:
            if job.status == "fetching":
                job.status, job.urls = "queued", []  # addresses may hold signatures: they are not kept
                self._write(job)
                self._changed.notify_all()

    def _finish(self, job: Job, status: str, error: ApiError | None = None) -> None:
        """Note the end of a job, and delete its frames."""
        with self._changed:
            if job.id not in self._jobs or job.status in FINISHED:
                return
            job.status, job.finished, job.urls = status, time.time(), []
            job.error = None if error is None else error.content["error"]  # type: ignore[assignment]
            folder = self._folder / job.id
            self._write(job)
            for file in job.files:
                (folder / file).unlink(missing_ok=True)
            if status != "succeeded":
                shutil.rmtree(folder / RESULTS, ignore_errors=True)
            self._changed.notify_all()
        self.metrics.finish(status, job.seconds)
        logger.info("job %s %s%s", job.id, status, f": {error}" if error else "")
        self.sweep()

    def _delete(self, job: Job) -> None:
        """Forget a job; its record goes first, so that no half of it is found again."""
        self._jobs.pop(job.id, None)
        folder = self._folder / job.id
        (folder / _RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _write(self, job: Job, folder: Path | None = None) -> None:
        """Write the record of a job."""
        folder = folder or self._folder / job.id
        try:
            with complete_or_absent(folder / _RECORD) as part:
                part.write_text(json.dumps(asdict(job), indent=1), encoding="utf-8")
        except (OSError, ValueError) as error:
            if not job.status or folder.parent == self._incoming:
                raise
            logger.error("The record of job %s cannot be written (%s).", job.id, error)


def explain_os_error(error: OSError) -> ApiError:
    """Explain an error of the server's own disk to a client, who can do nothing but wait."""
    if is_disk_full(error):
        return ApiError(507, "room for the frames on the server", "its disk full", "Try again later.", retry_after=60)
    logger.error("A folder of jobs cannot be used: %s", error)
    return ApiError(500, "a server that can store frames", "an error of its disk", "Tell its operator.")


def to_datetime(seconds: float | None) -> datetime | None:
    """Give a time as UTC."""
    return None if seconds is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
