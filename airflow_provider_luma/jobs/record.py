"""The record of one paid job: who asked for what, and how far it got. Pure.

Its JSON form is described by ``record.schema.json`` beside this module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pendulum

if TYPE_CHECKING:
    from airflow.sdk import Context

SCHEMA_VERSION = 1


class RecordState(StrEnum):
    """How far a job got."""

    #: Written before the paid call: perhaps bought.
    INTENT = "intent"
    #: Bought; the request id is known.
    SUBMITTED = "submitted"
    #: The vendor has the video.
    COMPLETED = "completed"
    #: The video is at ``output_path``.
    DELIVERED = "delivered"
    #: Refused or FAILED: not billed.
    FAILED = "failed"


IN_FLIGHT = (RecordState.INTENT, RecordState.SUBMITTED, RecordState.COMPLETED)


@dataclass(frozen=True)
class Identity:
    """One task instance, the same in each of its attempts: the try number is not part of it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @classmethod
    def of(cls, context: Context) -> Identity:
        """Return the identity of the task instance that runs in a context."""
        ti = context["ti"]
        map_index = -1 if ti.map_index is None else ti.map_index
        return cls(ti.dag_id, ti.run_id, ti.task_id, map_index)

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{mapped} in run {self.run_id}"

    @property
    def digest(self) -> str:
        """A short name for files; the parts are joined by NUL, so that no two identities meet."""
        parts = (self.dag_id, self.run_id, self.task_id, str(self.map_index))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def fingerprint(
    *, luma_ray_conn_id: str, model: str, parameters: Mapping[str, Any], frame: str | None, tag: str | None
) -> str:
    """Return the digest of all that is billed: another value means another video and another purchase.

    :param luma_ray_conn_id: two connections may be two accounts
    :param model: the model's slug
    :param parameters: the request body without the frame
    :param frame: the frame's content digest, or its URL without a signature
    :param tag: the user's ``generation_tag``
    """
    material = json.dumps([luma_ray_conn_id, model, parameters, frame, tag], sort_keys=True, default=str)
    return hashlib.sha256(material.encode()).hexdigest()


@dataclass(frozen=True)
class JobRecord:
    """A job on record, and afterwards the video's provenance. Its JSON form is the file beside the video.

    :param state: how far the job got
    :param identity: the task instance that bought it
    :param fingerprint: digest of all that is billed
    :param luma_ray_conn_id: the connection that pays
    :param model: the model's slug
    :param parameters: the request body without the frame
    :param body_sha256: digest of the request body as sent, by which the vendor's history is searched
    :param api_version: v1 or v2
    :param output_path: where the video goes
    :param intent_at: when the paid call was about to be made (ISO 8601, UTC), as the other times
    :param start_frame: where the frame came from, without a signature
    :param frame_identity: its content's digest, or its URL without a signature
    :param generation_tag: the user's tag
    :param submitted_at: when the vendor took it
    :param completed_at: when the video was first seen to be ready
    :param delivered_at: when the video was in its place
    :param request_id: the vendor's id of the job
    :param output_url: where the vendor keeps the video for seven days
    :param result: the vendor's whole reply, kept where it named no video
    :param cost: US dollars charged
    :param remaining_credits: the balance after the job in US dollars
    :param bytes: the video's size
    :param sha256: the video's digest
    :param error: why it failed
    :param revision: counts the writes, so that the newer of two copies can be told
    :param superseded: earlier records of the same video path, oldest first
    """

    state: RecordState
    identity: Identity
    fingerprint: str
    luma_ray_conn_id: str
    model: str
    parameters: dict[str, Any]
    body_sha256: str
    api_version: str
    output_path: str
    intent_at: str
    start_frame: str | None = None
    frame_identity: str | None = None
    generation_tag: str | None = None
    submitted_at: str | None = None
    completed_at: str | None = None
    delivered_at: str | None = None
    request_id: str | None = None
    output_url: str | None = field(default=None, repr=False)
    result: dict[str, Any] | None = field(default=None, repr=False)
    cost: Decimal | None = None
    remaining_credits: Decimal | None = None
    bytes: int | None = None
    sha256: str | None = None
    error: str | None = None
    revision: int = 0
    superseded: tuple[dict[str, Any], ...] = ()

    def moved(self, state: RecordState, **changes: Any) -> JobRecord:
        """Return the record in a later state."""
        return replace(self, state=state, **changes)

    @property
    def started(self) -> pendulum.DateTime:
        """When the job's time began to count: at the submission, or where that is unknown at the intent."""
        return read_time(self.submitted_at or self.intent_at)

    def recalled(self, fingerprint: str) -> JobRecord:
        """Return this record, or the earlier take of the same task instance that has a fingerprint.

        An earlier take whose video a later one has replaced is COMPLETED again: bought, and to be fetched.
        """
        for take in reversed(self.superseded if self.fingerprint != fingerprint else ()):
            earlier = JobRecord.from_json({**take, "superseded": []})
            if (earlier.fingerprint, earlier.identity) == (fingerprint, self.identity):
                others = tuple(other for other in self.history() if other != take)
                replaced = earlier.state is self.state is RecordState.DELIVERED
                state = RecordState.COMPLETED if replaced else earlier.state
                return replace(earlier, state=state, revision=self.revision, superseded=others)
        return self

    def history(self) -> tuple[dict[str, Any], ...]:
        """Return this record and those it superseded, for the record that supersedes it."""
        own = self.to_json()
        del own["superseded"]
        return (*self.superseded, own)

    def request_ids(self) -> set[str]:
        """Return the ids of all jobs that this record and its predecessors lay claim to."""
        ids = {self.request_id, *(earlier.get("request_id") for earlier in self.superseded)}
        return {request_id for request_id in ids if request_id}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, with amounts as strings and no absent values."""
        raw = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        plain: dict[str, Any] = json.loads(json.dumps(raw, default=str))
        return {"schema_version": SCHEMA_VERSION, **plain, "superseded": list(self.superseded)}

    @classmethod
    def from_json(cls, raw: object) -> JobRecord:
        """Read the JSON form.

        :raises ValueError: it is not one, or of another schema version
        """
        if not isinstance(raw, dict) or raw.get("schema_version") != SCHEMA_VERSION:
            version = raw.get("schema_version") if isinstance(raw, dict) else None
            raise ValueError(f"schema version {version!r} is not {SCHEMA_VERSION}")
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in raw.items() if name in known}
        try:
            values["state"] = RecordState(values["state"])
            values["identity"] = Identity(**values["identity"])
            values["superseded"] = tuple(values.get("superseded", ()))
            for name in ("cost", "remaining_credits"):
                if values.get(name) is not None:
                    values[name] = Decimal(values[name])
            record = cls(**values)
            if not all(
                isinstance(text, str) for text in (record.fingerprint, record.body_sha256, record.model)
            ):
                raise TypeError("a digest or the model is not text")
            if record.state is RecordState.SUBMITTED and not record.request_id:
                raise ValueError("a submitted job without a request id")
            for time in (record.intent_at, record.submitted_at):
                read_time(time or record.intent_at)
        except (KeyError, TypeError, ArithmeticError, ValueError) as error:
            raise ValueError(f"not a job record: {error!r}") from None
        return record


def now() -> str:
    """Return the present time as the record writes it."""
    return pendulum.now("UTC").isoformat()


def read_time(text: str) -> pendulum.DateTime:
    """Return a time of the record.

    :raises ValueError: it is not one
    """
    moment = pendulum.parse(text)
    if not isinstance(moment, pendulum.DateTime):
        raise ValueError(f"{text!r} is not a date and time")
    return moment
