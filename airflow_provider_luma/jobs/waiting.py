"""One look at a job, for the blocking wait and for the trigger alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import LumaRayRateLimited, LumaRayUnavailable
from airflow_provider_luma.segmind.messages import JobState, JobStatus

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook


def look(hook: LumaRayHook, request_id: str) -> JobStatus:
    """Ask how a job stands: the status call, and the history where that no longer (or not yet) knows the job.

    A passing failure is the state UNKNOWN, which never ends a wait.

    :raises LumaRayAuthenticationError: the key does not work
    """
    try:
        status = hook.get_status(request_id)
        if status.state is not JobState.NOT_FOUND:
            return status
        row = hook.find_job(request_id)
    except (LumaRayRateLimited, LumaRayUnavailable):
        return JobStatus(JobState.UNKNOWN)
    return status if row is None else row.status()
