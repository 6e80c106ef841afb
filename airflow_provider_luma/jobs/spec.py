"""What one task instance asks for, checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState, fingerprint, now
from airflow_provider_luma.media import Frame
from airflow_provider_luma.segmind.request import GenerationRequest

if TYPE_CHECKING:
    from airflow_provider_luma.storage import StoragePath


@dataclass(frozen=True)
class JobSpec:
    """A job to be. What is not explained here is the operator's argument of the same name.

    :param request: the body to be, its frame not filled in yet
    :param frame: the checked start frame
    :param output: where the video goes
    """

    identity: Identity
    luma_ray_conn_id: str
    request: GenerationRequest
    frame: Frame | None
    frame_transfer: str
    generation_tag: str | None
    output: StoragePath
    api_version: str
    if_exists: str
    on_unknown_submit: str
    min_remaining_credits: Decimal | None
    timeout: timedelta
    poll_interval: float | None

    @property
    def fingerprint(self) -> str:
        """The digest of all that is billed."""
        return fingerprint(
            luma_ray_conn_id=self.luma_ray_conn_id,
            model=self.request.model,
            parameters=self.request.parameters(),
            frame=self.frame.identity if self.frame else None,
            tag=self.generation_tag,
        )

    def intent(self, *, body_sha256: str, api_version: str) -> JobRecord:
        """Return the record of a paid call that is about to be made."""
        return JobRecord(
            state=RecordState.INTENT,
            identity=self.identity,
            fingerprint=self.fingerprint,
            luma_ray_conn_id=self.luma_ray_conn_id,
            model=self.request.model,
            parameters=self.request.parameters(),
            start_frame=self.frame.source if self.frame else None,
            frame_identity=self.frame.identity if self.frame else None,
            generation_tag=self.generation_tag,
            body_sha256=body_sha256,
            api_version=api_version,
            output_path=str(self.output),
            intent_at=now(),
        )
