"""Runner of jobs: one at a time, each in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select, update

from anomem.errors import AnomemError, one_line
from anomem.service.errors import ConflictError, MissingError
from anomem.service.events import Events
from anomem.service.folder import StationFolder
from anomem.service.jobs.spec import read_result, write_spec
from anomem.service.jobs.tasks import Tasks
from anomem.service.lifecycle import Lifecycle
from anomem.service.store.audit import record
from anomem.service.store.database import Database
from anomem.service.store.models import get_model
from anomem.service.store.tables import Job, Model, Version, now

__all__ = ["Runner"]

_log = logging.getLogger(__name__)

_KINDS = {"fit": "fit", "refit": "labels", "calibrate": "calibration"}
"""Kind of the version that a kind of job makes."""

_IDLE_S = 60.0
_KILL_S = 5.0
_OPEN = ("queued", "running")


class Runner:
    """Thread that takes queued jobs, oldest first.

    Parameters
    ----------
    database : Database
    folder : StationFolder
    tasks : Tasks
    lifecycle : Lifecycle
    events : Events
    """

    def __init__(
        self, database: Database, folder: StationFolder, tasks: Tasks, lifecycle: Lifecycle, events: Events
    ) -> None:
        self._database, self._folder, self._tasks = database, folder, tasks
        self._lifecycle, self._events = lifecycle, events
        self._changed = threading.Condition()
        self._stopped = False
        self._running: tuple[int, subprocess.Popen[str]] | None = None
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        """Queue the jobs that an earlier process has left, and start the thread."""
        with self._database.writing() as session:
            for job in session.scalars(select(Job).where(Job.state == "running")):
                version = session.scalar(select(Version).where(Version.job_id == job.id))
                if version is None:
                    job.state = "queued"
                else:
                    job.state, job.finished, job.result = "done", now(), {"version": version.id}
        self._thread.start()

    def stop(self) -> None:
        """End the running process; its job is taken up again by the next start."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            self._end()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, model_id: int, kind: str, params: dict[str, Any], author: str) -> Job:
        """Queue a job.

        Raises
        ------
        ConflictError
            A job of this kind waits or runs for the model.
        """
        with self._database.writing() as session:
            model = get_model(session, model_id)
            same = select(Job.id).where(Job.model_id == model_id, Job.kind == kind, Job.state.in_(_OPEN))
            if session.scalar(same.limit(1)) is not None:
                raise ConflictError(f"model {model.name}: a {kind} waits or runs already; wait, or cancel it")
            job = Job(model_id=model_id, kind=kind, params=params, author=author)
            session.add(job)
            session.flush()
            record(session, author, f"job.{kind}", f"model {model.name}", job=job.id)
        with self._changed:
            self._changed.notify()
        return job

    def cancel(self, job_id: int, author: str) -> Job:
        """Cancel a job that waits or runs.

        Raises
        ------
        ConflictError
            It has ended.
        """
        with self._database.writing() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise MissingError(f"job {job_id}: does not exist; see the list of jobs")
            if job.state not in _OPEN:
                raise ConflictError(f"job {job_id}: is {job.state}; only waiting and running jobs can be cancelled")
            job.state, job.finished = "cancelled", now()
            record(session, author, "job.cancel", f"job {job_id}")
        with self._changed:
            if self._running is not None and self._running[0] == job_id:
                self._end()
        self._tell(job)
        return job

    def _run(self) -> None:
        while not self._stopped:
            try:
                job = self._next()
                if job is not None:
                    self._work(job)
            except Exception:  # noqa: BLE001 - logged
                _log.exception("job")  # the database is away, the disk is full: the thread goes on
                with self._changed:
                    self._changed.wait(1.0)

    def _next(self) -> Job | None:
        with self._database.writing() as session:
            job = session.scalar(select(Job).where(Job.state == "queued").order_by(Job.id).limit(1))
            if job is not None:
                job.state, job.started = "running", now()
        if job is None:
            with self._changed:
                if not self._stopped:
                    self._changed.wait(_IDLE_S)
        return job

    def _work(self, job: Job) -> None:
        room = self._folder.jobs / str(job.id)
        shutil.rmtree(room, ignore_errors=True)
        (room / "out").mkdir(parents=True)
        self._tell(job)
        try:
            with self._database.reading() as session:
                write_spec(room, self._tasks.gather(session, job, room / "out"))
            error = self._process(job, room)
            result = read_result(room)
        except AnomemError as problem:
            error, result = one_line(problem), None
        if result is not None:
            self._finish(job, room, result)
        elif not self._stopped:
            self._close(job, "failed", error=error or "job: its process ended without a result; see the station's log")
        if not self._stopped:
            shutil.rmtree(room, ignore_errors=True)

    def _process(self, job: Job, room: Path) -> str | None:
        """Run the process of a job to its end, and return its error."""
        command = [sys.executable, "-m", "anomem.service.jobs.process", str(room)]
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        ) as process:
            with self._changed:
                self._running = job.id, process
                if self._stopped or self._state(job.id) != "running":
                    self._end()
            try:
                return self._follow(job, process.stdout)
            finally:
                with self._changed:
                    self._running = None

    def _follow(self, job: Job, lines: IO[str] | None) -> str | None:
        error = None
        for line in lines or ():
            try:
                content = json.loads(line)
            except ValueError:  # a library's print
                continue
            if "error" in content:
                error = str(content["error"])
            elif "stage" in content:
                self._progress(job, content)
        return error

    def _progress(self, job: Job, progress: dict[str, Any]) -> None:
        job.progress = progress
        with self._database.writing() as session:
            session.execute(update(Job).where(Job.id == job.id).values(progress=progress))
        self._tell(job)

    def _state(self, job_id: int) -> str:
        with self._database.reading() as session:
            return session.get_one(Job, job_id).state

    def _end(self) -> None:
        """End the running process; called with the lock held."""
        if self._running is None:
            return
        process = self._running[1]
        process.terminate()
        timer = threading.Timer(_KILL_S, process.kill)
        timer.daemon = True
        timer.start()

    def _finish(self, job: Job, room: Path, result: dict[str, Any]) -> None:
        """Register what a job has made, and mark it done."""
        if job.kind == "rescore":
            self._close(job, "done", result=result)
            return
        figures = result["figures"] | {"notes": result.get("notes", [])}
        out_of_fold = figures.pop("out_of_fold", {})
        (room / "out" / "out_of_fold.json").write_text(json.dumps(out_of_fold), encoding="utf-8")
        version = self._lifecycle.add_from_job(job, _KINDS[job.kind], room / "out", result["files"], figures)
        if version is not None:
            problem = self._promote(version, figures)
            self._close(job, "done", result={"version": version.id}, error=problem)

    def _promote(self, version: Version, figures: dict[str, Any]) -> str | None:
        """Promote the first version of a model, and those that are not worse where the model says so."""
        with self._database.reading() as session:
            model = session.get_one(Model, version.model_id)
        try:
            if model.current_id is None:
                self._lifecycle.promote(version.id, version.author, reason="first version")
            elif model.settings.get("promote") == "auto" and figures.get("better"):
                self._lifecycle.promote(version.id, "automatic", reason="not worse than the version before")
        except AnomemError as error:
            return one_line(error)
        return None

    def _close(self, job: Job, state: str, *, result: dict[str, Any] | None = None, error: str | None = None) -> None:
        """Mark a job ended, unless it was cancelled in the meantime."""
        with self._database.writing() as session:
            row = session.get_one(Job, job.id, with_for_update=True)
            if row.state == "running":
                row.state, row.finished, row.result = state, now(), result or {}
                row.error = None if error is None else error[:2000]
        self._tell(row)

    def _tell(self, job: Job) -> None:
        facts = {"job": job.id, "model": job.model_id, "kind": job.kind, "state": job.state, "progress": job.progress}
        self._events.publish("job", facts)
