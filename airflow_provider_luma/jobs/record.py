"""The record of a paid job: who asked for what, and how far it got. Pure.

A *take* is one purchase of a clip: one paid call and whatever came of it. A record holds the current take of an output
path and the superseded ones. As JSON it is the video's sidecar file; ``JobRecord.model_json_schema()`` describes it.
"""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

import pendulum
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from airflow_provider_luma.segmind.ids import is_same_id

if TYPE_CHECKING:
    from airflow.sdk import Context


class RecordState(StrEnum):
    """How far a job got."""

    #: Written before the paid call: may be bought.
    INTENT = "intent"
    #: Bought; the request id is known.
    SUBMITTED = "submitted"
    #: The vendor has the video.
    COMPLETED = "completed"
    #: The video is at ``output_path``.
    DELIVERED = "delivered"
    #: Refused or FAILED: not billed.
    FAILED = "failed"
    #: Bought, and abandoned by a person.
    GIVEN_UP = "given_up"


IN_FLIGHT = (RecordState.INTENT, RecordState.SUBMITTED, RecordState.COMPLETED)
#: Of two records of one take, the state further down wins.
_ORDER = (
    RecordState.INTENT,
    RecordState.SUBMITTED,
    RecordState.FAILED,
    RecordState.COMPLETED,
    RecordState.DELIVERED,
    RecordState.GIVEN_UP,
)
#: Fields of one delivery: merged all or nothing.
_DELIVERY = ("sha256", "bytes", "mark")
#: How many calls that bought nothing are kept; a busy account's rate limit can cause many.
_KEPT_REFUSALS = 10
_FIRST_COUNTS = ("request_id", "claim", "intent_at", "cost", "output_url")


class Identity(BaseModel):
    """Whose job it is: a task instance, across all its attempts, since the try number is not part of it.

    :param key: distinguishes the clips that one task buys with the hook; outside a task, it is all there is
    """

    model_config = ConfigDict(frozen=True)

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    key: str | None = None

    @classmethod
    def of(cls, context: Context, key: str | None = None) -> Identity:
        """Return the identity of a context's task instance."""
        ti = context["ti"]
        map_index = -1 if ti.map_index is None else ti.map_index
        return cls(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=map_index, key=key)

    @classmethod
    def outside_tasks(cls, key: str) -> Identity:
        """Return the identity of a caller that is not a task."""
        return cls(dag_id="", run_id="", task_id="", key=key)

    @property
    def is_of_task(self) -> bool:
        """Whether it is a task's, with retries, clears and a run."""
        return self.dag_id != ""

    @property
    def unmapped(self) -> Identity:
        """The same task in the same run, without the map index."""
        return self.model_copy(update={"map_index": -1})

    def __str__(self) -> str:
        if not self.is_of_task:
            return f"key {self.key!r}"
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        keyed = f" (key {self.key!r})" if self.key is not None else ""
        return f"{self.dag_id}.{self.task_id}{mapped}{keyed} in run {self.run_id}"

    @property
    def digest(self) -> str:
        """A short name for files; the parts are joined by NUL, so that no two identities collide."""
        parts = [self.dag_id, self.run_id, self.task_id, str(self.map_index)]
        if self.key is not None:
            parts.append(self.key)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class Clears(BaseModel):
    """Distinguishes a retry from a clear: a clear changes both ``max_tries`` and ``clear_number``, a retry neither.

    :param max_tries: Airflow's ``ti.max_tries``, which changes when an ended task instance is cleared. It may fall, as
        it is then ``try_number`` plus the current ``retries``
    :param clear_number: Airflow's ``dag_run.clear_number``, which grows when any task of the run is cleared
    :param try_number: Airflow's ``ti.try_number``, which grows with each try, over all clears
    """

    model_config = ConfigDict(frozen=True)

    max_tries: int | None = None
    clear_number: int | None = None
    try_number: int | None = None

    @classmethod
    def of(cls, context: Context) -> Clears:
        """Return a context's numbers; None for those it does not have."""
        run: Any = context.get("dag_run")
        return cls(
            max_tries=_whole(getattr(context["ti"], "max_tries", None)),
            clear_number=_whole(getattr(run, "clear_number", None)),
            try_number=_whole(getattr(context["ti"], "try_number", None)),
        )

    def is_cleared_since(self, earlier: Clears) -> bool:
        """Whether the task was cleared since ``earlier``; when in doubt, no: the bought job is finished first.

        No for an attempt that outlived a clear, too: the purchase made after that clear is the newer one.
        """
        if self.max_tries is None or earlier.max_tries is None or self.max_tries == earlier.max_tries:
            return False
        if self.clear_number is None or earlier.clear_number is None:
            return True
        # Airflow does not count every clear in the run: not one with reset_dag_runs=false.
        return self.order > earlier.order

    def is_retry_of(self, earlier: Clears) -> bool:
        """Whether the task was certainly not cleared since ``earlier``."""
        return None not in (self.max_tries, earlier.max_tries) and not self.is_cleared_since(earlier)

    def or_later(self, other: Clears) -> Clears:
        """Return the later of the two, or this one if that is unclear."""
        if self.clear_number is None or other.clear_number is None:
            return self
        return other if other.order > self.order else self

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts one task instance's attempts; the last number decides only if a record lacks the second."""
        return self.clear_number or 0, self.try_number or 0, self.max_tries or 0


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def fingerprint(
    *, luma_ray_conn_id: str, model: str, parameters: Mapping[str, Any], frame: str | None, tag: str | None
) -> str:
    """Return the digest of everything that determines the bill: a different digest means a different video.

    :param luma_ray_conn_id: two connections may be two accounts
    :param model: the model's slug
    :param parameters: the request body without the frame, its URLs without signatures
    :param frame: the frame's content digest, or its URL without a signature
    :param tag: the user's ``generation_tag``
    """
    material = json.dumps([luma_ray_conn_id, model, parameters, frame, tag], sort_keys=True, default=str)
    return hashlib.sha256(material.encode()).hexdigest()


class JobRecord(BaseModel):
    """A take's record, and later the video's provenance. Times are ISO 8601 in UTC."""

    model_config = ConfigDict(frozen=True, extra="allow", title="Record of a Luma Ray job")

    schema_version: Literal[1] = 1
    state: RecordState
    identity: Identity = Field(description="the task instance that bought it")
    claim: str = Field(
        default="", description="the take's key: a nonce of the attempt that made the paid call"
    )
    cleared: Clears = Field(default=Clears(), description="the task instance's clears as of its last attempt")
    fingerprint: str = Field(description="digest of everything that determines the bill")
    luma_ray_conn_id: str = Field(description="the connection that pays")
    model: str = Field(description="the model's slug")
    parameters: dict[str, Any] = Field(
        description="the request body without the frame, URLs without signatures"
    )
    body_sha256: str = Field(description="digest of the body as sent, to find the job in the history")
    body_is_unique: bool = Field(
        default=False, description="whether no other call can have sent the same body"
    )
    api_version: str = Field(description="v1 or v2")
    output_path: str = Field(description="where the video goes")
    moved_to: str | None = Field(
        default=None,
        description="where it goes by now, on the record that its task's edited output_path has left",
    )
    recorded_at: tuple[str, ...] | None = Field(
        default=None, description="the paths whose records have it, once its task's output_path was edited"
    )
    intent_at: str = Field(description="when the paid call was about to be made")
    called_at: str | None = Field(
        default=None,
        description="the same by the vendor's clock; absent as long as the worker had only its own",
    )
    start_frame: str | None = Field(
        default=None, description="where the frame came from, without a signature"
    )
    frame_identity: str | None = Field(default=None, description="its digest, or its URL without a signature")
    generation_tag: str | None = Field(default=None, description="the user's tag")
    submitted_at: str | None = Field(default=None, description="when the vendor accepted it")
    completed_at: str | None = Field(default=None, description="when the video was first seen to be ready")
    delivered_at: str | None = Field(default=None, description="when the video was delivered")
    request_id: str | None = Field(default=None, min_length=1, description="the vendor's id of the job")
    answered_id: str | None = Field(
        default=None,
        description="another id that the record got for the same v1 call; one of the two is a gateway's",
    )
    output_url: str | None = Field(
        default=None, repr=False, description="where the vendor keeps the video for seven days"
    )
    result: dict[str, Any] | None = Field(
        default=None, repr=False, description="the vendor's whole reply, kept if it named no video"
    )
    cost: Decimal | None = Field(default=None, description="US dollars charged")
    remaining_credits: Decimal | None = Field(default=None, description="US dollars left after the job")
    bytes: int | None = Field(default=None, description="the video's size")
    sha256: str | None = Field(
        default=None, description="the video's digest, recorded before the video is moved into place"
    )
    mark: str | None = Field(
        default=None, description="the store's version mark of the video, such as its ETag"
    )
    settled: Literal["bought", "not bought"] | None = Field(
        default=None, description="what a person found out about a paid call of unknown outcome"
    )
    error: str | None = Field(default=None, description="why it failed, or why its outcome is unknown")
    revision: int = Field(default=0, description="counts the writes; the higher of two copies is the newer")
    superseded: tuple[JobRecord, ...] = Field(default=(), description="earlier takes, oldest first")

    @field_validator("intent_at", "called_at", "submitted_at")
    @classmethod
    def _is_time(cls, text: str | None) -> str | None:
        if text is not None:
            _read_time(text)
        return text

    @model_validator(mode="after")
    def _has_id(self) -> Self:
        if self.state is RecordState.SUBMITTED and not self.request_id:
            raise ValueError("a submitted job without a request id")
        return self

    @property
    def is_in_flight(self) -> bool:
        """Whether it is bought, or may be, and its video not yet delivered."""
        return self.state in IN_FLIGHT

    @property
    def bought_nothing(self) -> bool:
        """Whether its call failed without an id: there is nothing to lose."""
        return self.state is RecordState.FAILED and not self.request_id

    @property
    def started(self) -> pendulum.DateTime:
        """When the timeout started to run: at the submission, or at the intent if that is unknown."""
        return _read_time(self.submitted_at or self.called_at or self.intent_at)

    @property
    def earliest(self) -> pendulum.DateTime:
        """The earliest time at which the call may have begun, by the vendor's clock or the worker's."""
        return min(self.started, _read_time(self.intent_at))

    def age(self, now: datetime) -> float:
        """Return how long the vendor has had the job, in seconds; never negative, whatever the clocks say."""
        return max((now - self.started).total_seconds(), 0.0)

    @property
    def label(self) -> str:
        """What messages call the job."""
        if self.request_id:
            return f"job {self.request_id}"
        may = "may have been" if self.state is RecordState.INTENT else "was"
        return f"a job that {may} bought at {self.intent_at}"

    @property
    def name(self) -> str:
        """What log lines about the job begin with: its id, if it has one."""
        return self.request_id or self.label

    @property
    def takes(self) -> tuple[JobRecord, ...]:
        """All takes of this record, each on its own, the current one last."""
        return (*self.superseded, self.changed(superseded=()))

    @property
    def key(self) -> str:
        """The take's key, unique within its path and stable for life."""
        return self.claim or self.intent_at  # an earlier version recorded no claim

    def changed(self, **changes: Any) -> JobRecord:
        """Return a copy with some values changed."""
        return self.model_copy(update=changes)

    def _known(self) -> dict[str, Any]:
        return {name: value for name, value in self if value is not None and name != "superseded"}

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids that this take has: none, one, or two if one of them is a gateway's."""
        return tuple(one for one in (self.request_id, self.answered_id) if one)

    def dump(self) -> dict[str, Any]:
        """Return the JSON form: amounts as strings, absent values left out."""
        return self.model_dump(
            mode="json", exclude_none=True, exclude={"superseded": {"__all__": {"superseded"}}}
        )

    def to_bytes(self) -> builtins.bytes:
        """Return the file's content."""
        return (json.dumps(self.dump(), indent=2) + "\n").encode()

    @classmethod
    def load(cls, content: object) -> JobRecord:
        """Read the JSON form, as text or parsed.

        :raises ValueError: not a record, or of another schema version; names the fields at fault, never their values
        """
        try:
            raw = json.loads(content) if isinstance(content, str | bytes) else content
            if isinstance(raw, dict) and "schema_version" not in raw:
                raise ValueError("it has no schema_version")
            return cls.model_validate(raw)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        except ValueError as error:
            problems = getattr(error, "errors", None)
            if problems is None:
                raise
            told = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in problems()[:3]
            )
            raise ValueError(told) from None


def assemble(current: JobRecord, others: Iterable[JobRecord]) -> JobRecord:
    """Return a record with ``current`` as the current take and all others as superseded, each once.

    Its task instance's last few takes that bought nothing are kept too: a copy that this process cannot see may still
    have them as intents.
    """
    takes: dict[str, JobRecord] = {}
    for take in others:
        if take.key != current.key:
            known = takes.get(take.key)
            takes[take.key] = combine(known, take) if known else take
    mine = [
        key
        for key, take in takes.items()
        # A person may have been mistaken.
        if take.bought_nothing and take.settled is None and take.identity == current.identity
    ]
    for key in mine[:-_KEPT_REFUSALS]:
        del takes[key]
    return current.changed(superseded=tuple(takes.values()))


def merge(theirs: JobRecord, mine: JobRecord) -> JobRecord:
    """Merge two writers' records; the current take stays that of the one who wrote first.

    No id, cost, URL, digest or take of either is lost.

    :param theirs: the record as it is
    :param mine: what was about to be written without having seen it
    """
    known = {take.key: take for take in theirs.takes}
    for take in mine.takes:
        there = known.get(take.key)
        if there is None:
            known[take.key] = take
        elif is_other_job(there, take):
            other = take.changed(claim=f"{take.key}/{take.request_id}")
            known[other.key] = combine(known.get(other.key, other), other)
        else:
            known[take.key] = combine(there, take)
    merged = assemble(known.pop(theirs.key), known.values())
    return merged.changed(revision=max(theirs.revision, mine.revision))


def is_other_job(theirs: JobRecord, mine: JobRecord) -> bool:
    """Whether two records of one call name two jobs. On v1 one of the ids may be a gateway's, and the job the same."""
    return theirs.api_version != "v1" and names_another(theirs, mine)


def names_another(theirs: JobRecord, mine: JobRecord) -> bool:
    """Whether two records of one call have different ids."""
    ids = theirs.request_id, mine.request_id
    return ids[0] is not None and ids[1] is not None and not is_same_id(ids[0], ids[1])


def combine(theirs: JobRecord, mine: JobRecord) -> JobRecord:
    """Merge two records of one take.

    The further state wins, unless that record bought nothing and the other has a job's id. An id, a cost or a URL that
    ``theirs`` has stays, and so does its digest: whoever records a digest first decides which bytes are the video.
    """
    has_id = theirs.request_id or mine.request_id
    able = [take for take in (theirs, mine) if not (has_id and take.bought_nothing)]
    further = max(able, key=lambda take: _ORDER.index(take.state))
    values = (mine if further is theirs else theirs)._known() | further._known()
    values |= {name: value for name, value in theirs._known().items() if name in _FIRST_COUNTS}
    if names_another(theirs, mine):
        values["answered_id"] = mine.request_id
    if theirs.sha256 and mine.sha256 != theirs.sha256:
        values |= {name: getattr(theirs, name) for name in _DELIVERY}
        if further is mine and mine.state is RecordState.DELIVERED:
            values["state"] = theirs.state
    return theirs.model_copy(update=values)


def _read_time(text: str) -> pendulum.DateTime:
    moment = pendulum.parse(text)
    if not isinstance(moment, pendulum.DateTime):
        raise ValueError(f"{text!r} is not a date and time")
    return moment
