"""What one task instance asks for. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.jobs.record import Clears, Identity, JobRecord, RecordState, fingerprint
from airflow_provider_luma.media import Frame, without_signatures
from airflow_provider_luma.segmind.request import GenerationRequest

if TYPE_CHECKING:
    from airflow_provider_luma.storage import StoredFile


@dataclass(frozen=True)
class Inputs:
    """Everything that determines the bill.

    :param request: the request body, its frame not filled in yet
    :param frame: the checked start frame
    """

    request: GenerationRequest
    frame: Frame | None

    @property
    def parameters(self) -> dict[str, Any]:
        """The request body without the frame, and without the signatures of other URLs."""
        parameters: dict[str, Any] = without_signatures(self.request.parameters())
        return parameters


@dataclass(frozen=True)
class JobSpec:
    """What an operator asks for. Fields not explained here are the operator's arguments of the same name.

    :param cleared: the task instance's clears as of this attempt
    :param output: where the video goes
    :param inputs: checks and reads the inputs. It gets the take on record, if any, which identifies a frame that is
        gone by now
    """

    identity: Identity
    cleared: Clears
    luma_ray_conn_id: str
    output: StoredFile
    inputs: Callable[[JobRecord | None], Inputs]
    frame_transfer: str
    generation_tag: str | None
    api_version: str
    if_exists: str
    on_unknown_submit: str
    min_remaining_credits: Decimal | None
    timeout: timedelta
    poll_interval: float | None

    def fingerprint(self, inputs: Inputs) -> str:
        """Return the digest of everything that determines the bill."""
        return fingerprint(
            luma_ray_conn_id=self.luma_ray_conn_id,
            model=inputs.request.model,
            parameters=inputs.parameters,
            frame=inputs.frame.identity if inputs.frame else None,
            tag=self.generation_tag,
        )

    def intent(
        self,
        inputs: Inputs,
        *,
        body_sha256: str,
        body_is_unique: bool,
        api_version: str,
        at: datetime,
        called_at: datetime | None,
    ) -> JobRecord:
        """Return the record of a paid call that is about to be made.

        :param at: the time by the worker's clock
        :param called_at: the same by the vendor's, if known
        """
        frame = inputs.frame
        return JobRecord(
            state=RecordState.INTENT,
            identity=self.identity,
            cleared=self.cleared,
            fingerprint=self.fingerprint(inputs),
            luma_ray_conn_id=self.luma_ray_conn_id,
            model=inputs.request.model,
            parameters=inputs.parameters,
            start_frame=frame.source if frame else None,
            frame_identity=frame.identity if frame else None,
            generation_tag=self.generation_tag,
            body_sha256=body_sha256,
            body_is_unique=body_is_unique,
            api_version=api_version,
            output_path=str(self.output),
            intent_at=(called_at or at).isoformat(),
            called_at=called_at.isoformat() if called_at else None,
        )
