"""The record: its JSON form, its schema, merging what two writers know, and the fingerprint."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.record import (
    Identity,
    JobRecord,
    RecordState,
    assemble,
    combine,
    fingerprint,
    merge,
)
from airflow_provider_luma.segmind.history import body_digest
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.jobs.takes import ME, SIBLING, YESTERDAY, take
from tests.support import make_operator, record_path, recorded, task_context

RECORDS = Path(__file__).with_name("records")
OF_RELEASES = sorted(path.relative_to(RECORDS).as_posix() for path in RECORDS.glob("*/*.json"))
jsonschema = importlib.import_module("jsonschema")

FULL = assemble(
    take(
        "delivered",
        claim="second",
        bytes=9,
        sha256="d1",
        mark="ETag:1",
        submitted_at="2026-11-22T10:00:01+00:00",
        output_url="https://images.segmind.com/outputs/v.mp4",
        result={"detail": [1, None]},
        cost=Decimal("1.60"),
        remaining_credits=Decimal("0.0184921035"),
        revision=7,
    ),
    [take("given_up", claim="first", fingerprint="old", revision=3)],
)


# The JSON form


def test_the_json_form_has_the_whole_record() -> None:
    assert JobRecord.load(FULL.to_bytes()) == FULL
    assert JobRecord.load(FULL.to_bytes().decode()) == FULL
    assert JobRecord.load(json.loads(json.dumps(FULL.dump()))) == FULL


def test_absent_values_are_omitted_and_superseded_takes_have_no_superseded_ones() -> None:
    dumped = FULL.dump()
    assert "error" not in dumped
    assert "superseded" not in dumped["superseded"][0]
    assert dumped["remaining_credits"] == "0.0184921035", "amounts keep all their decimals"


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "text",
        "{",
        b"\xff\xfe",
        "[" * 100_000,
        {},
        {"schema_version": 2},
        {name: value for name, value in FULL.dump().items() if name != "schema_version"},
        FULL.dump() | {"schema_version": 2},
        FULL.dump() | {"state": "sold"},
        FULL.dump() | {"identity": "me"},
        FULL.dump() | {"intent_at": "yesterday"},
        FULL.dump() | {"submitted_at": "P1D"},
        FULL.dump() | {"cost": "much"},
        FULL.dump() | {"cost": "NaN"},
        FULL.dump() | {"fingerprint": None},
        FULL.dump() | {"request_id": ""},
        FULL.dump() | {"superseded": [{}]},
        take("submitted").dump() | {"request_id": None},
    ],
)
def test_invalid_records_are_refused(raw: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        JobRecord.load(raw)


def test_the_error_names_the_field_but_not_its_value() -> None:
    with pytest.raises(ValueError, match=r"^output_url: Input should be a valid string$") as told:
        JobRecord.load(FULL.dump() | {"output_url": ["https://x.example/v.mp4?sig=secret"]})
    assert told.value.__cause__ is None


def test_fields_of_later_versions_are_kept() -> None:
    read = JobRecord.load(FULL.dump() | {"mood": "good"})
    changed = read.changed(state=RecordState.GIVEN_UP)
    assert changed.dump() == FULL.dump() | {"mood": "good", "state": "given_up"}


def test_all_jobs_of_a_record_stay_claimed() -> None:
    assert {one for take in FULL.takes for one in take.ids} == {"id-of-first", "id-of-second"}
    assert [one.claim for one in FULL.takes] == ["first", "second"]
    assert all(not one.superseded for one in FULL.takes)


# Records of earlier versions


@pytest.mark.parametrize("name", OF_RELEASES)
def test_records_of_every_release_are_read_whole(name: str) -> None:
    """A field that was renamed or removed would be kept as one of a later version's, and forgotten by the code."""
    raw = json.loads(RECORDS.joinpath(name).read_text())
    record = JobRecord.load(raw)
    for one, theirs in zip(record.takes, (*raw.get("superseded", ()), raw), strict=True):
        assert one.model_extra == {}
        dumped = one.dump()
        assert {field: dumped[field] for field in theirs if field != "superseded"} == {
            field: value for field, value in theirs.items() if field != "superseded"
        }
    assert JobRecord.load(record.to_bytes()) == record


@pytest.mark.parametrize("release", sorted({name.partition("/")[0] for name in OF_RELEASES} - {"before-0.1"}))
def test_every_release_left_a_record_in_each_state(release: str) -> None:
    left = [JobRecord.load(path.read_bytes()) for path in RECORDS.joinpath(release).glob("*.json")]
    assert {record.state for record in left} == set(RecordState)


@pytest.mark.parametrize("name", ["delivered", "intent"])
def test_a_record_from_before_claims_is_read_with_its_earlier_takes(name: str) -> None:
    raw = json.loads(RECORDS.joinpath("before-0.1", f"{name}.json").read_text())
    record = JobRecord.load(raw)
    assert record.state == name
    new = {"body_is_unique": False, "claim": "", "cleared": {}}
    assert record.dump() == raw | new | {"superseded": [one | new for one in raw["superseded"]]}
    assert JobRecord.load(record.to_bytes()) == record
    assert len({one.key for one in record.takes}) == 2


def test_a_call_lost_before_claims_is_looked_up_and_its_job_delivered(
    simulator: Simulator, connection: None, tmp_path: Path
) -> None:
    """Its id becomes known, but it is still the same take."""
    clip = tmp_path / "clip.mp4"
    request = GenerationRequest("luma-ray-img-2-video", "a quick pan", None)
    request_id = LumaRayHook().submit(request)
    raw = json.loads(RECORDS.joinpath("before-0.1", "intent.json").read_text())
    raw |= {"body_sha256": body_digest(request.body()), "output_path": str(clip)}
    raw["intent_at"] = LumaRayHook().vendor_now().isoformat()
    record_path(clip).write_text(json.dumps(raw))

    outputs = make_operator(None, clip).execute(task_context())
    assert outputs["request_id"] == request_id
    record = recorded(clip)
    assert (record["state"], record["request_id"]) == ("delivered", request_id)
    assert [one["state"] for one in record["superseded"]] == ["delivered"]
    assert simulator.calls["submit"] == 1


# What two writers know together

_TIMES = ("2026-11-22T10:00:00+00:00", "2026-11-22T11:00:00+00:00")
_FIRST = st.sampled_from(("intent", "submitted", "failed", "completed", "delivered", "given_up"))


@st.composite
def takes_of(draw: st.DrawFn, claim: str, *, vendor_id: str | None = None) -> JobRecord:
    """What one writer knows of purchases: owner and id follow from the claim, unless another id is given."""
    state = draw(_FIRST)
    has_id = state in ("submitted", "completed", "delivered") or draw(st.booleans())
    is_bought = has_id or state not in ("intent", "failed")
    sha256 = draw(st.sampled_from((None, "d1", "d2"))) if is_bought else None
    if state == "delivered":
        sha256 = sha256 or "d1"
    return take(
        state,
        owner=(ME, SIBLING, YESTERDAY)[ord(claim) % 3],
        claim=claim,
        intent_at=_TIMES[0],
        request_id=(vendor_id or f"id-of-{claim}") if has_id else None,
        cost=Decimal("1.60") if is_bought and draw(st.booleans()) else None,
        output_url=draw(st.sampled_from((None, "u1", "u2"))) if is_bought else None,
        sha256=sha256,
        bytes={"d1": 1, "d2": 2}.get(sha256 or ""),
        mark=f"mark-of-{sha256}" if sha256 and draw(st.booleans()) else None,
        revision=draw(st.integers(0, 9)),
    )


@st.composite
def records(draw: st.DrawFn) -> JobRecord:
    claims = draw(st.lists(st.sampled_from("abc"), unique=True, min_size=1))
    known = [
        draw(takes_of(claim, vendor_id=draw(st.sampled_from((None, None, "another"))))) for claim in claims
    ]
    return assemble(known[0], known[1:])


def told(takes: Iterable[JobRecord]) -> set[tuple[str, object]]:
    """The values in takes that must not be lost, each with the id of its job if known."""
    said: set[tuple[str, object]] = set()
    for one in takes:
        for name in {one.request_id, one.key.partition("/")[0]} - {None}:
            said |= {("take", name)}
            said |= {(kind, name) for kind in ("cost", "output_url", "sha256") if getattr(one, kind)}
    return said


@settings(deadline=None, max_examples=500)
@given(records(), records())
def test_merging_loses_nothing_that_either_writer_knows(theirs: JobRecord, mine: JobRecord) -> None:
    merged = merge(theirs, mine)
    known = (*theirs.takes, *mine.takes)
    settled = {one.key for one in known if one.bought_nothing}
    assert told(one for one in known if one.request_id or one.key not in settled) <= told(merged.takes)
    assert merged.key == theirs.key, "who was first has the path"
    assert len({one.key for one in merged.takes}) == len(merged.takes), "each take once"
    assert merged.revision == max(theirs.revision, mine.revision)


@settings(deadline=None, max_examples=500)
@given(records(), records())
def test_merging_again_changes_nothing(theirs: JobRecord, mine: JobRecord) -> None:
    once = merge(theirs, mine)
    assert merge(once, mine) == once
    assert merge(once, once) == once
    assert merge(theirs, theirs) == theirs


@settings(deadline=None, max_examples=500)
@given(records(), records())
def test_a_delivered_take_stays_delivered(theirs: JobRecord, mine: JobRecord) -> None:
    after = {one.key: one for one in merge(theirs, mine).takes}
    for one in theirs.takes:
        if one.state is RecordState.DELIVERED:
            assert after[one.key].state in (RecordState.DELIVERED, RecordState.GIVEN_UP)
            assert (after[one.key].sha256, after[one.key].bytes) == (one.sha256, one.bytes)


@settings(deadline=None, max_examples=500)
@given(takes_of("a"), takes_of("a"))
def test_a_video_is_never_mixed_from_two_deliveries(theirs: JobRecord, mine: JobRecord) -> None:
    both = combine(theirs, mine)
    assert both.bytes == {"d1": 1, "d2": 2}.get(both.sha256 or "")
    assert both.mark in (None, f"mark-of-{both.sha256}")
    assert both.sha256 == (theirs.sha256 or mine.sha256), "the first that was put on record"


@pytest.mark.parametrize(
    ("theirs", "mine", "state"),
    [
        (take("intent"), take("submitted"), "submitted"),
        (take("completed"), take("submitted"), "completed"),
        (take("submitted"), take("failed", request_id="id-of-c1"), "failed"),
        (take("completed"), take("failed", request_id="id-of-c1"), "completed"),
        (take("delivered", sha256="d1"), take("completed", sha256="d1"), "delivered"),
        (take("completed", sha256="d1"), take("delivered", sha256="d1"), "delivered"),
        (take("completed", sha256="d1"), take("delivered", sha256="d2"), "completed"),
        (take("delivered", sha256="d1"), take("given_up"), "given_up"),
        (take("intent"), take("failed"), "failed"),
        # Who does not know the id does not know the job.
        (take("submitted"), take("failed"), "submitted"),
        (take("failed"), take("submitted"), "submitted"),
        (take("failed"), take("completed"), "completed"),
    ],
)
def test_of_two_versions_of_a_take_the_one_that_knows_more_counts(
    theirs: JobRecord, mine: JobRecord, state: str
) -> None:
    assert combine(theirs, mine).state == state


def test_two_jobs_of_one_claim_are_two_takes_and_both_are_kept() -> None:
    merged = merge(take("submitted", request_id="r1"), take("submitted", request_id="r2"))
    again = merge(merged, take("completed", request_id="r2", cost=Decimal(1), output_url="u2"))
    assert {one.request_id: (one.state, one.cost, one.output_url) for one in again.takes} == {
        "r1": ("submitted", None, None),
        "r2": ("completed", Decimal(1), "u2"),
    }


def test_one_job_in_two_spellings_is_one_take() -> None:
    """The vendor's replies have a job's id with or without dashes."""
    dashed, plain = "6947f304-637e-4538-b9a5-bf957de1236c", "6947F304637E4538B9A5BF957DE1236C"
    merged = merge(take("submitted", request_id=dashed), take("completed", request_id=plain))
    assert (len(merged.takes), merged.request_id, merged.state) == (1, dashed, "completed")


@pytest.mark.parametrize("first_known", ["intent", "failed"])
def test_a_call_that_is_known_to_have_bought_nothing_stays_so(first_known: str) -> None:
    """Even if one of the two copies does not know that yet."""
    knows, does_not = take("failed", claim="lost"), take("intent", claim="lost")
    copies = [does_not, knows] if first_known == "intent" else [knows, does_not]
    (kept,) = assemble(take("intent", claim="new"), copies).superseded
    assert kept.state is RecordState.FAILED


def test_of_many_refusals_the_last_ones_are_kept() -> None:
    refused = [take("failed", claim=f"c{number}") for number in range(30)]
    kept = assemble(take("intent", claim="new"), refused).superseded
    assert [one.key for one in kept] == [f"c{number}" for number in range(20, 30)]


# The schema


def check(raw: object) -> None:
    schema = JobRecord.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(raw)


@pytest.mark.parametrize("api_version", ["v2", "v1"])
def test_delivered_records_with_superseded_takes_fit_the_schema(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path, api_version: str
) -> None:
    clip = tmp_path / "clip.mp4"
    for clears, tag in enumerate((None, "second take")):
        arguments = {"api_version": api_version, "generation_tag": tag, "concepts": ["push_in"]}
        make_operator(frame, clip, **arguments).execute(task_context(clears=clears))
    record = recorded(clip)
    assert (record["state"], len(record["superseded"])) == ("delivered", 1)
    check(record)


def _broken_submit(simulator: Simulator) -> None:
    simulator.fault("submit", "status", status=500, accepted=False)


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (lambda simulator: simulator.set_credits("0"), "failed"),
        (lambda simulator: simulator.fail_next(error="moderated"), "failed"),
        (lambda simulator: simulator.fault("status", "status", status=500, times=99), "submitted"),
        (lambda simulator: simulator.fault("download", "status", status=500, times=99), "completed"),
        (_broken_submit, "intent"),
    ],
)
def test_records_of_bad_days_fit_the_schema(
    simulator: Simulator,
    connection: None,
    frame: Path,
    tmp_path: Path,
    fault: Callable[[Simulator], None],
    state: str,
) -> None:
    fault(simulator)
    clip = tmp_path / "clip.mp4"
    with pytest.raises(LumaRayError):
        make_operator(frame, clip, timeout=timedelta(seconds=1)).execute(task_context())
    assert recorded(clip)["state"] == state
    check(recorded(clip))


@pytest.mark.parametrize("name", OF_RELEASES)
def test_records_of_every_release_fit_the_schema(name: str) -> None:
    check(json.loads(RECORDS.joinpath(name).read_text()))


@pytest.mark.parametrize(
    "change",
    [{"state": "bought"}, {"schema_version": 2}, {"cost": []}, {"request_id": ""}, {"superseded": [{}]}],
)
def test_the_schema_refuses_invalid_records(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(FULL.dump() | change)


def test_the_schema_explains_each_field() -> None:
    fields = JobRecord.model_json_schema()["$defs"]["JobRecord"]["properties"]
    assert {name for name, field in fields.items() if "description" not in field} == {
        "schema_version",
        "state",
    }


# The fingerprint

BILLED = {
    "luma_ray_conn_id": "luma_ray_default",
    "model": "luma-ray-img-2-video",
    "parameters": {"prompt": "p", "loop": False},
    "frame": "sha256:1",
    "tag": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"luma_ray_conn_id": "other_account"},
        {"model": "luma-ray-3-2"},
        {"parameters": {"prompt": "q", "loop": False}},
        {"parameters": {"prompt": "p", "loop": True}},
        {"frame": "sha256:2"},
        {"frame": None},
        {"tag": "take 2"},
    ],
)
def test_everything_that_is_billed_changes_the_fingerprint(change: dict[str, object]) -> None:
    assert fingerprint(**BILLED) != fingerprint(**{**BILLED, **change})  # type: ignore[arg-type]


def test_the_order_of_parameters_does_not_change_the_fingerprint() -> None:
    turned = {**BILLED, "parameters": {"loop": False, "prompt": "p"}}
    assert fingerprint(**BILLED) == fingerprint(**turned)  # type: ignore[arg-type]


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.integers(-1, 3))
def test_two_task_instances_never_share_a_digest(dag: str, run: str, task: str, index: int) -> None:
    other = Identity(dag_id="a", run_id="b", task_id="c", map_index=1)
    one = Identity(dag_id=dag, run_id=run, task_id=task, map_index=index)
    assert (one.digest == other.digest) == (one == other)
