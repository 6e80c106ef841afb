"""What must be true after a run, whatever happened meanwhile."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_provider_luma.simulator.simulator import JobSnapshot
from tests.fleet.endings import DELIVERED, TOLD, TOLD_AND_BOUGHT, Endings
from tests.fleet.rig import Rig, Run
from tests.storage.conftest import SECRET
from tests.support import API_KEY


def check_delivered(rig: Rig, run: Run) -> None:
    """Check that each clip of a run was bought once and delivered."""
    bought = purchases(run)
    for map_index in range(run.clips):
        jobs = bought.pop(run.prompt(map_index))
        assert [job.charged for job in jobs] == [True], story(rig, run, map_index, f"it bought {jobs}")
        _check_clip(rig, run, map_index, jobs[0])
    assert bought == {}


def settle(rig: Rig, endings: Endings, fault: str, *runs: Run) -> None:
    """Wait until runs have ended, check them, and note how.

    Where a person was told that a clip may be bought, and it is, a clear has to find and deliver it.
    """
    rig.wait(*runs)
    found = {run: check_settled(rig, run) for run in runs}
    endings.add(fault, sum(found.values(), Counter()))
    if told := [run for run, ended in found.items() if ended[TOLD_AND_BOUGHT]]:
        for run in told:
            rig.fleet.clear(run.dag_id, run.run_id)
        rig.wait(*told)
        assert not any(check_settled(rig, run)[TOLD_AND_BOUGHT] for run in told)
    check_secrets(rig)


def check_settled(rig: Rig, run: Run) -> Counter[str]:
    """Check that no clip of a run was bought twice, and that each was delivered or a person was told what to do.

    :return: how many clips were delivered, told with nothing bought, and told with a purchase
    """
    bought = purchases(run)
    states = {task["map_index"]: task["state"] for task in rig.fleet.task_instances(run.dag_id, run.run_id)}
    endings: Counter[str] = Counter()
    for map_index in range(run.clips):
        jobs = bought.get(run.prompt(map_index), [])
        assert len(jobs) <= 1, story(rig, run, map_index, f"it bought {jobs}")
        if states[map_index] == "success":
            assert [job.charged for job in jobs] == [True], story(rig, run, map_index, f"it bought {jobs}")
            _check_clip(rig, run, map_index, jobs[0])
            endings[DELIVERED] += 1
            continue
        log = log_of(rig, run, map_index)
        assert "LumaRaySubmitUnknown" in log, story(rig, run, map_index, f"it is {states[map_index]}")
        endings[TOLD_AND_BOUGHT if jobs else TOLD] += 1
    return endings


def purchases(run: Run) -> dict[str, list[JobSnapshot]]:
    """Return the jobs that a run bought, by their prompts."""
    found = defaultdict(list)
    for job in run.simulator.jobs:
        if job.body["prompt"].startswith(f"{run.run_id},"):
            found[job.body["prompt"]].append(job)
    return found


def check_bucket(rig: Rig, *runs: Run) -> None:
    """Check that the bucket holds nothing of these runs but their clips and records."""
    folders = tuple(f"clips/{run.dag_id}/{run.run_id}/" for run in runs)
    there = {name for name in rig.bucket.names() if name.startswith(folders)}
    clips = {run.clip(map_index) for run in runs for map_index in range(run.clips)}
    assert there == clips | {f"{clip}.job.json" for clip in clips}
    assert rig.bucket.uploads() == []


def check_secrets(rig: Rig) -> None:
    """Check that neither key is in a log, in the database or in a record."""
    for place, text in _texts(rig):
        for secret in (API_KEY, SECRET):
            assert secret not in text, f"{place} has a key"


def story(rig: Rig, run: Run, map_index: int, problem: str) -> str:
    """Return what is known of one clip."""
    logs = log_of(rig, run, map_index)
    return f"{run}[{map_index}]: {problem}\nrecord: {record(rig, run, map_index)}\n{logs}"


def log_of(rig: Rig, run: Run, map_index: int) -> str:
    """Return the log of one clip's attempts, from all workers and triggerers."""
    pattern = f"*/logs/dag_id={run.dag_id}/run_id={run.run_id}/task_id=generate/map_index={map_index}/*"
    files = sorted(rig.fleet.home.glob(pattern))
    return "\n".join(f"== {file.relative_to(rig.fleet.home)}\n{file.read_text()}" for file in files)


def record(rig: Rig, run: Run, map_index: int) -> dict[str, Any]:
    """Return a clip's record; empty if there is none."""
    try:
        return rig.bucket.record(run.clip(map_index))
    except rig.bucket.client.exceptions.NoSuchKey:
        return {}


def _check_clip(rig: Rig, run: Run, map_index: int, job: JobSnapshot) -> None:
    found = record(rig, run, map_index)
    assert (found.get("state"), found.get("request_id")) == ("delivered", job.request_id), story(
        rig, run, map_index, "it was not delivered"
    )
    content = rig.bucket.get(run.clip(map_index))
    assert (found["bytes"], found["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def _texts(rig: Rig) -> Iterator[tuple[str, str]]:
    for file in rig.fleet.home.rglob("*.log*"):
        yield _place(rig.fleet.home, file)
    yield "the database", rig.fleet.postgres.dump()
    for name in rig.bucket.names():
        if name.endswith(".job.json"):
            yield name, rig.bucket.get(name).decode()


def _place(home: Path, file: Path) -> tuple[str, str]:
    return str(file.relative_to(home)), file.read_text(errors="replace")
