"""The commands that errors advise. Pure."""

from __future__ import annotations

import shlex

from airflow_provider_luma.jobs.record import Identity, JobRecord


def give_up(path: object, job: JobRecord, *, of: Identity | None = None) -> str:
    """Return the command line that gives a job up."""
    return command("give-up", path, *filter(None, [job.request_id]), call=job, of=of)


def command(
    name: str, path: object, *arguments: str, call: JobRecord | None = None, of: Identity | None = None
) -> str:
    """Return a command line about a clip, quoted for the shell.

    :param path: the clip's path
    :param arguments: further positional arguments
    :param call: the job that it is about, named by the time of its paid call if it has no id
    :param of: the task instance, if the path's record is another's at the moment
    """
    words = ["python", "-m", "airflow_provider_luma", name, str(path), *arguments]
    if call is not None and not call.request_id:
        words += ["--call", call.intent_at]
    if of is not None:
        words += ["--dag-id", of.dag_id, "--run-id", of.run_id, "--task-id", of.task_id]
        if of.map_index >= 0:
            words += ["--map-index", str(of.map_index)]
        if of.key is not None:
            words += ["--key", of.key]
    return shlex.join(words)
