"""What the operator is compared with: a task that only defers, and one that does the same I/O without any care."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import requests
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import ObjectStoragePath
from airflow.triggers.base import BaseTrigger, TriggerEvent

_TIMEOUT = 60
_POLL_INTERVAL = 2.0


class EmptyOperator(BaseOperator):
    """Defers for as long as a job takes, and does nothing else."""

    def __init__(self, *, prompt: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt

    def execute(self, context: Any) -> None:
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=2)), method_name="resume")

    def resume(self, context: Any, event: Any) -> None:
        pass


class ByHandOperator(BaseOperator):
    """Buys, waits and delivers, without records, checks or retries: a crash or a lost reply costs a clip."""

    template_fields: Sequence[str] = (
        "prompt",
        "start_frame",
        "output_path",
        "luma_ray_conn_id",
        "storage_conn_id",
    )

    def __init__(
        self,
        *,
        prompt: str,
        start_frame: str,
        output_path: str,
        luma_ray_conn_id: str,
        storage_conn_id: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.start_frame = start_frame
        self.output_path = output_path
        self.luma_ray_conn_id = luma_ray_conn_id
        self.storage_conn_id = storage_conn_id

    def execute(self, context: Any) -> None:
        frame = ObjectStoragePath(self.start_frame, conn_id=self.storage_conn_id)
        assert frame.read_bytes()  # the operator looks at its size, and knows it again by its digest
        url = frame.fs.sign(frame.path, expiration=7200)
        body = {"prompt": self.prompt, "start_frame": url, "resolution": "540p", "loop": False}
        job = call(self.luma_ray_conn_id, "POST", "v2/luma-ray-img-2-video", json=body)["request_id"]
        self.defer(trigger=ByHandTrigger(self.luma_ray_conn_id, job), method_name="resume")

    def resume(self, context: Any, event: str) -> str:
        output = call(self.luma_ray_conn_id, "GET", f"v2/requests/{event}")["output"]
        video = requests.get(output, timeout=_TIMEOUT).content
        target = ObjectStoragePath(
            f"{self.output_path}/{context['ti'].map_index}.mp4", conn_id=self.storage_conn_id
        )
        target.write_bytes(video)
        return str(target)


class ByHandTrigger(BaseTrigger):
    """Polls one job."""

    def __init__(self, luma_ray_conn_id: str, request_id: str) -> None:
        super().__init__()
        self.luma_ray_conn_id = luma_ray_conn_id
        self.request_id = request_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {"luma_ray_conn_id": self.luma_ray_conn_id, "request_id": self.request_id}
        return f"{__name__}.ByHandTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        path = f"v2/requests/{self.request_id}/status"
        while (await asyncio.to_thread(call, self.luma_ray_conn_id, "GET", path))["status"] != "COMPLETED":
            await asyncio.sleep(_POLL_INTERVAL)
        yield TriggerEvent(self.request_id)


def call(conn_id: str, method: str, path: str, **arguments: Any) -> Any:
    connection = BaseHook.get_connection(conn_id)
    reply = requests.request(
        method,
        f"{connection.host}/{path}",
        headers={"x-api-key": connection.password or ""},
        timeout=_TIMEOUT,
        **arguments,
    )
    reply.raise_for_status()
    return reply.json()
