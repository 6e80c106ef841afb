"""The owner of a record: two copies, conditional writes, a claim before each paid call."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayRecordError,
    LumaRaySuperseded,
)
from airflow_provider_luma.jobs.ledger import FRESH_SECONDS, STATE_KEY, Ledger, Standing
from airflow_provider_luma.jobs.record import Clears, Identity, JobRecord, RecordState, assemble
from airflow_provider_luma.storage import LocalFile
from airflow_provider_luma.storage.local import LOCK_NAME
from tests.jobs.takes import ME, SIBLING, YESTERDAY, take
from tests.support import MemoryStore, record_path


class BrokenStore:
    """A task state store whose API server is down, or goes down at some call."""

    def get(self, key: str) -> Any:
        return None

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        raise ConnectionError("the API server is away")


class Gone(Exception):
    """What Airflow's client raises for an error response."""

    def __init__(self, status_code: int) -> None:
        super().__init__("API_SERVER_ERROR")
        self.error = SimpleNamespace(error="API_SERVER_ERROR", detail={"status_code": status_code})


class AttemptsStore(MemoryStore):
    """A task state store as seen by an attempt; when a retry or a clear replaces it, its id is gone."""

    #: What the API server answers by now; None: it still is the attempt's.
    refusal: int | None = None

    def get(self, key: str) -> Any:
        return super().get(key) if self.refusal is None else None

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.refusal is not None:
            raise Gone(self.refusal)
        super().set(key, value)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return tmp_path / "clip.mp4"


def ledger_of(clip: Path, store: Any = None, owner: Identity = ME, **options: Any) -> Ledger:
    """Return the ledger of a new attempt."""
    return Ledger(owner, LocalFile(clip), store, **options)


def on_record(clip: Path) -> JobRecord:
    return JobRecord.load(record_path(clip).read_bytes())


def bought(clip: Path, store: Any = None, owner: Identity = ME, **values: Any) -> JobRecord:
    """Record a purchase as an attempt does; return its take."""
    ledger = ledger_of(clip, store, owner)
    ledger.read()
    claim = ledger.claim(take("intent", owner=owner, **values))
    assert claim is not None
    return ledger.advance(claim, state=RecordState.SUBMITTED, request_id=f"id-of-{claim.claim}")


def stale_pair(clip: Path, store: Any = None) -> tuple[Ledger, Ledger]:
    """Return the ledgers of two attempts that have both read, but do not know each other's writes."""
    pair = ledger_of(clip, store), ledger_of(clip, store)
    for ledger in pair:
        ledger.read()
    return pair


# What is read


def test_nothing_in_either_place_is_nothing_on_record(clip: Path) -> None:
    assert ledger_of(clip, MemoryStore()).read() == Standing()


@pytest.mark.parametrize("lost", ["neither", "file", "store"])
def test_either_copy_alone_suffices(clip: Path, lost: str) -> None:
    store = MemoryStore()
    job = bought(clip, store)
    if lost == "file":
        record_path(clip).unlink()
    if lost == "store":
        store.values.clear()
    standing = ledger_of(clip, store).read()
    assert (standing.own, standing.takes) == (job, (job,))
    assert standing.current == (None if lost == "file" else job)
    assert standing.other is None


def test_another_task_instances_record_is_recognized(clip: Path) -> None:
    theirs = bought(clip, owner=SIBLING)
    assert ledger_of(clip, MemoryStore()).read() == Standing(current=theirs, takes=(theirs,))


def test_ones_own_take_is_found_below_anothers(clip: Path) -> None:
    mine = bought(clip, MemoryStore())
    theirs = bought(clip, owner=SIBLING)
    standing = ledger_of(clip).read()
    assert (standing.own, standing.other) == (mine, theirs)


def test_the_newer_copy_counts(clip: Path) -> None:
    store = MemoryStore()
    job = bought(clip, store)
    with_file_alone = ledger_of(clip)
    with_file_alone.read()
    done = with_file_alone.advance(job, state=RecordState.DELIVERED, sha256="d1")
    assert JobRecord.load(store.get(STATE_KEY)) == job
    assert ledger_of(clip, store).read().own == done

    record_path(clip).write_bytes(job.to_bytes())
    store.set(STATE_KEY, done.dump())
    assert ledger_of(clip, store).read().own == done


@pytest.mark.parametrize("place", ["file", "store"])
def test_what_an_older_copy_knows_of_a_job_is_not_lost(clip: Path, place: str) -> None:
    """A person settled it while the other copy was out of reach; the vendor is then asked about the job."""
    store = MemoryStore()
    older = take("completed", request_id="r1", output_url="https://x.example/v.mp4", revision=3)
    newer = take("failed", revision=4)
    first, second = (older, newer) if place == "file" else (newer, older)
    record_path(clip).write_bytes(first.to_bytes())
    store.set(STATE_KEY, second.dump())
    own = ledger_of(clip, store).read().own
    assert own is not None
    assert (own.state, own.request_id, own.output_url) == ("failed", "r1", "https://x.example/v.mp4")


@pytest.mark.parametrize(
    ("before", "edited"),
    [
        (take("intent"), take("submitted", request_id="r1")),
        (take("intent"), take("failed", error="A person found that nothing was bought.")),
        (take("submitted"), take("given_up")),
    ],
)
def test_an_edit_of_the_state_stores_copy_alone_counts(
    clip: Path, before: JobRecord, edited: JobRecord
) -> None:
    """A person settles a job while the file cannot be reached; how often each copy was written does not matter."""
    store = MemoryStore()
    record_path(clip).write_bytes(before.to_bytes())
    store.set(STATE_KEY, edited.dump())
    ledger = ledger_of(clip, store)
    own = ledger.read().own
    assert own is not None
    assert (own.state, own.request_id) == (edited.state, edited.request_id)

    assert ledger.claim(take("intent")) is not None
    taken = {one.key: one.state for one in on_record(clip).superseded}
    assert taken == {edited.key: edited.state}, "nor does it come back where another job is bought"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": 99}'])
def test_an_unreadable_file_is_an_error_even_if_the_store_has_the_record(clip: Path, content: bytes) -> None:
    store = MemoryStore()
    bought(clip, store)
    record_path(clip).write_bytes(content)
    with pytest.raises(
        LumaRayRecordError, match=r"clip\.mp4\.job\.json (exists but cannot be read|is damaged)"
    ):
        ledger_of(clip, store).read()


def test_a_directory_in_place_of_the_record_is_an_error(clip: Path) -> None:
    record_path(clip).mkdir()
    with pytest.raises(LumaRayRecordError, match="cannot be read"):
        ledger_of(clip).read()


@pytest.mark.parametrize("value", ["[]", "{}", json.dumps(take("submitted", owner=SIBLING).dump())])
def test_an_unreadable_store_is_an_error_even_if_the_file_has_the_record(clip: Path, value: str) -> None:
    store = MemoryStore()
    bought(clip, store)
    store.values[STATE_KEY] = value
    with pytest.raises(LumaRayRecordError, match="task state store exists but cannot be read"):
        ledger_of(clip, store).read()


def test_an_unreachable_store_is_not_empty(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: BrokenStore, key: str) -> Any:
        raise ConnectionError("the API server is away")

    bought(clip)
    monkeypatch.setattr(BrokenStore, "get", away)
    with pytest.raises(LumaRayRecordError, match="the API server is away"):
        ledger_of(clip, BrokenStore()).read()


# A claim


def test_a_claim_is_on_record_in_both_places_and_names_its_attempt(clip: Path) -> None:
    store, cleared = MemoryStore(), Clears(max_tries=2, clear_number=1)
    ledger = ledger_of(clip, store, cleared=cleared, nonce=lambda: "n" * 32)
    ledger.read()
    claim = ledger.claim(take("intent"))
    assert claim is not None
    assert (claim.claim, claim.cleared, claim.state) == ("n" * 32, cleared, RecordState.INTENT)
    assert on_record(clip) == JobRecord.load(store.get(STATE_KEY)) == claim
    assert ledger.confirm(claim)


@pytest.mark.parametrize("is_first", [True, False], ids=["no record", "a record"])
def test_of_two_claims_on_one_path_one_wins(clip: Path, is_first: bool) -> None:
    if not is_first:
        bought(clip, owner=YESTERDAY)
    one, other = ledger_of(clip), ledger_of(clip, owner=SIBLING)
    for ledger in (one, other):
        ledger.read()
    claim = one.claim(take("intent"))
    assert claim is not None
    assert other.claim(take("intent", owner=SIBLING)) is None
    assert on_record(clip).key == claim.key
    assert one.confirm(claim)


def test_a_claim_keeps_what_was_on_record_before(clip: Path) -> None:
    store = MemoryStore()
    theirs = bought(clip, owner=SIBLING)
    mine = bought(clip, store)
    ledger = ledger_of(clip, store)
    ledger.read()
    claim = ledger.claim(take("intent"))
    assert on_record(clip).superseded == (theirs, mine)
    assert JobRecord.load(store.get(STATE_KEY)).superseded == (mine,), "the store has one's own only"
    assert claim is not None
    assert claim.superseded == ()


def test_a_claim_that_another_attempt_has_looked_up_meanwhile_is_not_confirmed(clip: Path) -> None:
    now = [0.0]
    ledger = ledger_of(clip, clock=lambda: now[0])
    ledger.read()
    claim = ledger.claim(take("intent"))
    assert claim is not None
    successor = ledger_of(clip)
    own = successor.read().own
    assert own is not None
    successor.advance(own, state=RecordState.SUBMITTED, request_id="r1")
    now[0] = FRESH_SECONDS
    assert not ledger.confirm(claim)


def test_an_old_claim_of_a_process_that_was_replaced_is_not_confirmed(clip: Path) -> None:
    now, store = [0.0], AttemptsStore()
    ledger = ledger_of(clip, store, clock=lambda: now[0])
    ledger.read()
    claim = ledger.claim(take("intent"))
    assert claim is not None
    now[0] = FRESH_SECONDS
    assert ledger.confirm(claim), "it still stands"
    store.refusal = 404
    now[0] += FRESH_SECONDS
    with pytest.raises(LumaRaySuperseded):
        ledger.confirm(claim)


def test_without_conditional_writes_the_last_claim_wins(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalFile, "is_conditional", property(lambda self: False))
    one, other = stale_pair(clip)
    first = one.claim(take("intent"))
    record_path(clip).unlink()  # both have looked, and neither saw the other's
    second = other.claim(take("intent"))
    assert first is not None
    assert second is not None
    assert (one.confirm(first), other.confirm(second)) == (False, True)


def test_a_withdrawn_claim_is_not_a_paid_call(clip: Path) -> None:
    store = MemoryStore()
    ledger = ledger_of(clip, store)
    ledger.read()
    claim = ledger.claim(take("intent"))
    assert claim is not None
    ledger.withdraw(claim, "the API server is away")
    for record in (on_record(clip), JobRecord.load(store.get(STATE_KEY))):
        assert (record.state, record.error) == (RecordState.FAILED, "the API server is away")


def test_a_withdrawn_claim_leaves_the_path_to_its_new_owner(clip: Path) -> None:
    one, other = stale_pair(clip)
    claim = one.claim(take("intent"))
    assert claim is not None
    other.read()
    successor = other.claim(take("intent", fingerprint="another"))
    one.withdraw(claim, "replaced")
    assert successor is not None
    assert on_record(clip).key == successor.key
    assert [take.state for take in on_record(clip).superseded] == [RecordState.FAILED]


def test_before_a_purchase_both_places_must_take_the_claim(clip: Path) -> None:
    """The copy that has the intent says afterwards that nothing was bought."""
    with pytest.raises(LumaRayRecordError, match="the API server is away"):
        ledger_of(clip, BrokenStore()).claim(take("intent"))
    assert on_record(clip).state is RecordState.FAILED


@pytest.mark.parametrize("status_code", [404, 410])
def test_an_attempt_that_a_retry_has_replaced_claims_nothing(clip: Path, status_code: int) -> None:
    store = AttemptsStore()
    store.refusal = status_code
    with pytest.raises(LumaRaySuperseded, match="Its successor continues"):
        ledger_of(clip, store).claim(take("intent"))
    assert on_record(clip).state is RecordState.FAILED


@pytest.mark.parametrize("status_code", [401, 409, 500])
def test_any_other_error_of_the_store_means_the_record_cannot_be_written(
    clip: Path, status_code: int
) -> None:
    store = AttemptsStore()
    store.refusal = status_code
    with pytest.raises(LumaRayRecordError) as told:
        ledger_of(clip, store).claim(take("intent"))
    assert not isinstance(told.value, LumaRaySuperseded)


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, NotADirectoryError])
def test_a_path_that_can_never_be_written_is_a_wrong_argument(
    clip: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refuse(self: LocalFile, content: bytes) -> str:
        raise error("not there")

    store = MemoryStore()
    monkeypatch.setattr(LocalFile, "create", refuse)
    with pytest.raises(LumaRayConfigurationError, match="cannot be written: not there"):
        ledger_of(clip, store).claim(take("intent"))
    assert store.values == {}


def test_a_write_whose_answer_was_lost_is_a_claim(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's client retries the write and is told that somebody was first: itself."""
    create = LocalFile.create

    def create_twice(self: LocalFile, content: bytes) -> str | None:
        create(self, content)
        return create(self, content)

    monkeypatch.setattr(LocalFile, "create", create_twice)
    ledger = ledger_of(clip)
    claim = ledger.claim(take("intent"))
    assert claim is not None
    assert ledger.confirm(claim)


def test_a_write_reported_as_failed_that_succeeded_is_a_claim(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = LocalFile.create

    def create_and_fail(self: LocalFile, content: bytes) -> str:
        create(self, content)
        raise TimeoutError("no answer")

    monkeypatch.setattr(LocalFile, "create", create_and_fail)
    assert ledger_of(clip).claim(take("intent")) is not None


# What happens to a job


def test_after_a_purchase_one_place_is_enough(clip: Path) -> None:
    job = bought(clip)
    ledger = ledger_of(clip, BrokenStore())
    ledger.read()
    done = ledger.advance(job, state=RecordState.COMPLETED)
    assert ledger_of(clip).read().own == done


def test_after_a_purchase_no_place_is_an_error_that_begins_with_the_id(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bought(clip)

    def full(self: LocalFile, content: bytes, token: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalFile, "replace", full)
    ledger = ledger_of(clip, BrokenStore())
    ledger.read()
    with pytest.raises(LumaRayRecordError, match=rf"^{job.request_id}: .*No space left on device"):
        ledger.advance(job, state=RecordState.COMPLETED)
    noted = ledger.note(job, state=RecordState.COMPLETED)
    assert noted.state is RecordState.COMPLETED, "the attempt goes on with what it knows"


def test_a_replaced_attempt_records_its_job_and_stops(clip: Path) -> None:
    store = AttemptsStore()
    ledger = ledger_of(clip, store)
    ledger.read()
    claim = ledger.claim(take("intent"))
    assert claim is not None
    store.refusal = 404
    for write in (ledger.advance, ledger.note):
        with pytest.raises(LumaRaySuperseded, match=r"^r1: .*\n.*is on record at .*clip\.mp4\.job\.json"):
            write(claim, state=RecordState.SUBMITTED, request_id="r1")
    assert (on_record(clip).state, on_record(clip).request_id) == (RecordState.SUBMITTED, "r1")


def test_a_lost_write_is_repeated_on_the_current_record(clip: Path) -> None:
    job = bought(clip)
    one, other = stale_pair(clip)
    one.advance(job, state=RecordState.COMPLETED, output_url="u1", cost=Decimal("1.60"))
    late = other.advance(job, submitted_at="2026-11-22T10:00:05+00:00")
    assert late == on_record(clip)
    assert (late.state, late.output_url, late.cost) == (RecordState.COMPLETED, "u1", Decimal("1.60"))
    assert late.submitted_at == "2026-11-22T10:00:05+00:00"
    assert late.revision > job.revision + 1


def test_the_first_delivery_stays(clip: Path) -> None:
    """Two attempts have one job's video, in different bytes."""
    job = bought(clip)
    one, other = stale_pair(clip)
    first = one.advance(job, sha256="d1", bytes=1)
    second = other.advance(job, sha256="d2", bytes=2)
    assert (second.sha256, second.bytes) == ("d1", 1)
    assert one.is_current(first)
    assert not other.is_current(job.changed(sha256="d2"))


def test_a_job_whose_path_was_taken_stays_on_record_as_superseded(clip: Path) -> None:
    job = bought(clip)
    ledger = ledger_of(clip)
    ledger.read()
    theirs = bought(clip, owner=SIBLING)
    late = ledger.advance(job, state=RecordState.COMPLETED)
    assert on_record(clip).key == theirs.key
    assert on_record(clip).superseded == (late,)
    assert late.state is RecordState.COMPLETED
    assert ledger.current_key == theirs.key


def test_a_take_takes_over_the_path_of_the_take_it_leaves(clip: Path) -> None:
    job = bought(clip)
    theirs = bought(clip, owner=YESTERDAY)
    ledger = ledger_of(clip)
    standing = ledger.read()
    ledger.advance(job, leaving=standing.current, state=RecordState.COMPLETED)
    assert on_record(clip).key == ledger.current_key == job.key
    assert on_record(clip).superseded == (theirs,)


def test_a_take_does_not_take_over_a_third_takes_path(clip: Path) -> None:
    job = bought(clip)
    bought(clip, owner=YESTERDAY)
    ledger = ledger_of(clip)
    standing = ledger.read()
    third = bought(clip, owner=SIBLING)
    ledger.advance(job, leaving=standing.current, state=RecordState.COMPLETED)
    assert on_record(clip).key == ledger.current_key == third.key
    assert {one.state for one in on_record(clip).superseded} == {"submitted", "completed"}


def test_a_record_without_changes_is_not_written(clip: Path) -> None:
    job = bought(clip)
    before = record_path(clip).stat().st_mtime_ns
    ledger = ledger_of(clip)
    ledger.read()
    assert ledger.advance(job, cleared=job.cleared) == job
    assert record_path(clip).stat().st_mtime_ns == before


def test_a_writer_who_loses_every_time_gives_up(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bought(clip)
    monkeypatch.setattr(LocalFile, "replace", lambda *arguments: None)
    ledger = ledger_of(clip)
    ledger.read()
    with pytest.raises(LumaRayRecordError, match="others wrote it 20 times in a row"):
        ledger.advance(job, state=RecordState.COMPLETED)


def test_a_write_that_dies_leaves_the_old_record_intact(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bought(clip)
    ledger = ledger_of(clip)
    ledger.read()

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", die)
        with pytest.raises(KeyboardInterrupt):
            ledger.advance(job, error="x" * 10_000)
    assert on_record(clip) == job
    assert {path.name for path in clip.parent.iterdir()} == {"clip.mp4.job.json", LOCK_NAME}


# Neighbours


def test_neighbours_are_the_other_records_in_the_folder(clip: Path) -> None:
    bought(clip)
    theirs = bought(clip.with_name("b.mp4"), owner=SIBLING)
    bought(clip.parent / "deeper" / "c.mp4", owner=SIBLING)
    (clip.parent / "notes.json").write_text(json.dumps({}))
    now = datetime.now(UTC)
    assert list(ledger_of(clip).neighbours(now)) == [theirs]
    shared = ledger_of(clip, shared=LocalFile(clip.parent))
    assert {record.output_path for record in shared.neighbours(now)} == {theirs.output_path}
    assert len(list(shared.neighbours(now))) == 2
    assert list(shared.neighbours(now + timedelta(hours=2))) == [], "what is old is of no interest"


def test_an_unreadable_neighbour_may_have_any_job(clip: Path) -> None:
    record_path(clip.with_name("b.mp4")).write_text("{")
    with pytest.raises(LumaRayRecordError, match=r"b\.mp4\.job\.json is damaged"):
        list(ledger_of(clip).neighbours(datetime.now(UTC)))


def test_records_of_one_path_are_assembled_in_order() -> None:
    one, two, three = (take("submitted", claim=claim) for claim in "abc")
    assert assemble(three, [one, two, one]).takes == (one, two, three)
