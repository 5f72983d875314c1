"""Jobs as processes with folders: here a script in the place of langslice, which goes on where it was."""

from __future__ import annotations

import os
import signal
import stat
import time
from dataclasses import replace

import pytest

from langslice.errors import PlanError
from langslice.studio.jobs import DONE, FAILED, RUNNING, STOPPED, JobRequest, Jobs

# Called as the command line is: --progress FILE WORD. Each step that is done stays done.
SCRIPT = """#!/bin/sh
say() { printf '{"time": 1, "step": "%s", "done": %s, "total": 2}\\n' "$1" "$2" >> "$2_of"; cat "$2_of" >> "$file"; rm "$2_of"; }
file=$2
[ "$3" = fail ] && { echo "error: no such thing" >&2; exit 2; }
if [ -e first ]; then say kept 1; else touch first; say first 1; fi
[ "$3" = wait ] && while [ ! -e "$GATE" ]; do sleep 0.02; done
say last 2
"""
WAIT = JobRequest("slice", "mini", ("wait",), "model: mini\n", "model=mini")


@pytest.fixture
def command(tmp_path, monkeypatch):
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    script.chmod(stat.S_IRWXU)
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    return (str(script),)


def until(jobs: Jobs, name: str, *status: str):
    for _ in range(1000):
        job = jobs.find(name)
        if job.status in status:
            return job
        time.sleep(0.01)
    raise AssertionError(job)


def begun(jobs: Jobs, name: str):
    for _ in range(1000):
        if jobs.find(name).steps:
            return jobs.find(name)
        time.sleep(0.01)
    raise AssertionError("no step")


def test_a_job_is_known_to_a_server_that_did_not_start_it_and_goes_on_after_a_kill(tmp_path, command):
    jobs = Jobs(tmp_path / "jobs", command)
    name = jobs.start(WAIT).name
    job = begun(jobs, name)
    assert (job.status, job.steps, job.event.step, job.event.done) == (RUNNING, ("first",), "first", 1)
    assert (job.folder / "recipe.yaml").read_text() == "model: mini\n"
    # Asked for again it is the same job, for this server and for the next.
    second = Jobs(tmp_path / "jobs", command)
    assert second.start(WAIT).name == name and second.find(name).status == RUNNING
    with pytest.raises(PlanError, match="one runs at a time"):
        second.start(replace(WAIT, state="another"))

    os.killpg(int((job.folder / "pid").read_text()), signal.SIGKILL)
    assert until(second, name, STOPPED, DONE).status == STOPPED
    second.start(WAIT)
    (tmp_path / "gate").touch()
    job = until(jobs, name, DONE, STOPPED, FAILED)
    assert (job.status, job.steps) == (DONE, ("first", "kept", "last"))
    started = job.started
    assert jobs.start(WAIT).started == started  # what is done is not done again


def test_a_job_that_is_stopped_stops_and_one_that_fails_says_why(tmp_path, command):
    jobs = Jobs(tmp_path / "jobs", command)
    name = jobs.start(WAIT).name
    begun(jobs, name)
    jobs.stop(name)
    assert jobs.find(name).status == STOPPED
    failing = jobs.start(replace(WAIT, words=("fail",))).name
    job = until(jobs, failing, FAILED, DONE, STOPPED)
    assert job.status == FAILED and "error: no such thing" in job.message
    assert [each.name for each in jobs.all()] == [failing, name]


def test_what_a_kill_cuts_off_does_not_hide_the_job(tmp_path, command):
    jobs = Jobs(tmp_path / "jobs", command)
    (tmp_path / "gate").touch()
    name = jobs.start(WAIT).name
    job = until(jobs, name, DONE)
    with (job.folder / "progress.jsonl").open("a") as file:
        file.write('{"time": 2, "st')
    assert jobs.find(name).event.step == "last"
    (job.folder / "job.json").write_text("{")
    assert jobs.find(name) is None and jobs.all() == []
    for strange in ("", ".", "..", "../jobs", name + "\n", name.upper() + "/"):
        assert jobs.find(strange) is None
