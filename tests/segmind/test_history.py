"""The request history: rows from an undocumented envelope, and which of them can be a lost job."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayError,
    LumaRayRateLimited,
    LumaRayUnavailable,
)
from airflow_provider_luma.segmind.history import (
    CLOCK_SKEW,
    HistoryEntry,
    NearMatch,
    body_digest,
    matches,
    near_matches,
    parse_one,
    parse_rows,
)
from airflow_provider_luma.segmind.replies import JobStatus, Reply, VendorStatus
from tests.segmind.replies import ASSET_URL, HOSTILE, KEY, VIDEO_URL, anyhow, anything, outcome, reply

BODY = {"prompt": "a road", "loop": False, "resolution": "720p", "start_frame": "https://x.example/f.jpg"}
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MODEL = "luma-ray-img-2-video"


def row(request_id: object = "r1", **changes: Any) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "model_name": MODEL,
        "model_status": "COMPLETED",
        "credits_deduction": 1.6,
        "request_body": BODY,
        "generation_url": VIDEO_URL,
        "latency_ms": 61500,
        "model_created": "2026-11-22T12:00:00.000Z",
        "error": None,
    } | changes


@pytest.mark.parametrize(
    "envelope",
    [
        lambda rows: rows,
        lambda rows: {"data": rows},
        lambda rows: {"data": rows, "page": 1, "total": 2},
        lambda rows: {"page": 1, "tags": ["a", "b"], "requests": rows},
        lambda rows: {"status": "ok", "result": {"pagination": {"page": 1}, "items": rows}},
        lambda rows: {"errors": [], "warnings": [], "data": rows},
        lambda rows: {"data": {"history": {"rows": rows}}},
    ],
)
def test_the_rows_are_found_in_any_envelope(envelope: Any) -> None:
    found = parse_rows(reply(envelope([row("r1"), row("r2")])))
    assert [entry.request_id for entry in found] == ["r1", "r2"]


@pytest.mark.parametrize("body", [[], {"data": []}, {"data": {"rows": []}, "total": 0}])
def test_an_empty_page_is_an_answer(body: object) -> None:
    assert parse_rows(reply(body)) == []


@pytest.mark.parametrize(
    "answer",
    [
        *(reply(body) for name, body in HOSTILE.items() if not name.startswith("list")),
        reply({"data": None}),
        reply({"data": "none"}),
        reply({"data": {"r1": row()}}),
        reply(["r1", "r2"]),
        reply([row(), None]),
        reply({"error": "oops"}),
        reply([row()], 500),
        reply([row()], 404),
        reply([row()], 302),
    ],
)
def test_a_reply_without_rows_does_not_prove_absence(answer: Reply) -> None:
    with pytest.raises(LumaRayUnavailable, match="request history"):
        parse_rows(answer)


@pytest.mark.parametrize(("status", "kind"), [(401, LumaRayAuthenticationError), (429, LumaRayRateLimited)])
def test_a_refused_query_says_so(status: int, kind: type[LumaRayError]) -> None:
    with pytest.raises(kind):
        parse_rows(reply({"error": "no"}, status))
    with pytest.raises(kind):
        parse_one(reply({"error": "no"}, status), "r1")


def test_a_row_is_parsed_completely() -> None:
    (found,) = parse_rows(reply([row(credits_deduction=0.0184921035)]))
    assert found == HistoryEntry(
        request_id="r1",
        model=MODEL,
        state=VendorStatus.COMPLETED,
        body_sha256=body_digest(BODY),
        created=NOON,
        cost=Decimal("0.0184921035"),
        output_url=VIDEO_URL,
        error=None,
    )
    assert VIDEO_URL not in repr(found)
    assert found.status().state is VendorStatus.COMPLETED
    assert found.status().output_url == VIDEO_URL


def test_a_request_with_several_outputs_is_one_request() -> None:
    rows = [row("r1"), row("r2"), row("r1"), row("r2"), row("r2")]
    assert [entry.request_id for entry in parse_rows(reply(rows))] == ["r1", "r2"]


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_row_without_an_id_is_not_a_request(nothing: object) -> None:
    assert [entry.request_id for entry in parse_rows(reply([row(request_id=nothing), row("r2")]))] == ["r2"]


@pytest.mark.parametrize("wrong", [7, [1], "\ud800", "r 1", "r" * 201])
def test_a_row_with_an_unreadable_id_may_be_the_one_sought(wrong: object) -> None:
    with pytest.raises(LumaRayUnavailable, match="request history"):
        parse_rows(reply([row("r1"), row(request_id=wrong)]))


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("COMPLETED", VendorStatus.COMPLETED),
        ("completed", VendorStatus.COMPLETED),
        ("FAILED", VendorStatus.FAILED),
        ("PENDING", VendorStatus.PROCESSING),
        ("ARCHIVED", VendorStatus.UNKNOWN),
        ("", VendorStatus.UNKNOWN),
        (None, VendorStatus.UNKNOWN),
        (1, VendorStatus.UNKNOWN),
        (["COMPLETED"], VendorStatus.UNKNOWN),
    ],
)
def test_state_of_a_row(word: object, state: VendorStatus) -> None:
    (found,) = parse_rows(reply([row(model_status=word)]))
    assert found.state is state
    assert found.status().state is state


@pytest.mark.parametrize(
    ("changes", "created"),
    [
        ({}, NOON),
        ({"model_created": "2026-11-22T12:00:00"}, NOON),
        ({"model_created": "2026-11-22 12:00:00"}, NOON),
        ({"model_created": "2026-11-22T17:30:00+05:30"}, NOON),
        ({"model_created": 1795348800}, NOON),
        ({"model_created": 1795348800000}, NOON),
        ({"model_created": None, "created_at": "2026-11-22T12:00:00Z"}, NOON),
        ({"model_created": None}, None),
        ({"model_created": "just now"}, None),
        ({"model_created": {"at": 1}}, None),
        ({"model_created": "0001-01-01T00:00:00+05:00"}, None),
    ],
)
def test_creation_time_of_a_row(changes: dict[str, Any], created: datetime | None) -> None:
    (found,) = parse_rows(reply([row(**changes)]))
    assert found.created == created


@pytest.mark.parametrize(
    ("body", "same"),
    [
        (BODY, True),
        (dict(reversed(BODY.items())), True),
        (json.dumps(BODY), True),
        (json.dumps(dict(reversed(BODY.items())), indent=2), True),
        (BODY | {"prompt": "a road "}, False),
        (BODY | {"loop": True}, False),
        (BODY | {"seed": None}, False),
        ({}, False),
        ("not json", None),
        ("[1]", None),
        ("[" * 100_000, None),
        ('{"a":' * 5000 + "1" + "}" * 5000, None),
        (None, None),
        ([], None),
    ],
)
def test_the_inputs_of_a_row(body: object, same: bool | None) -> None:
    (found,) = parse_rows(reply([row(request_body=body)]))
    if same is None:
        assert found.body_sha256 is None
    else:
        assert (found.body_sha256 == body_digest(BODY)) is same


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (VIDEO_URL, VIDEO_URL),
        ([VIDEO_URL], VIDEO_URL),
        ({"url": VIDEO_URL}, VIDEO_URL),
        (None, None),
        ("", None),
        ("clip.mp4", None),
        (7, None),
    ],
)
def test_output_of_a_row(value: object, url: str | None) -> None:
    (found,) = parse_rows(reply([row(generation_url=value)]))
    assert found.output_url == url


def test_the_reason_of_a_failed_row_is_redacted() -> None:
    (found,) = parse_rows(reply([row(model_status="FAILED", error=f"cannot fetch {ASSET_URL} of {KEY}")]))
    assert found.status().error == "cannot fetch <asset url> of <api key>"


@pytest.mark.parametrize(
    "body",
    [row(), {"data": row()}, {"data": [row()]}, [row("r0"), row("r1")], {"data": {"request": [row()]}}],
)
def test_one_request_is_found_in_any_envelope(body: object) -> None:
    found = parse_one(reply(body), "r1")
    assert found is not None
    assert found.request_id == "r1"
    assert found.output_url == VIDEO_URL


@pytest.mark.parametrize(
    "spelt", ["3f2b8c1e9a4d4f5e8b7a0c1d2e3f4a5b", "3F2B8C1E-9A4D-4F5E-8B7A-0C1D2E3F4A5B"]
)
def test_an_id_in_another_spelling_is_the_same_one(spelt: str) -> None:
    ours = "3f2b8c1e-9a4d-4f5e-8b7a-0c1d2e3f4a5b"
    found = parse_one(reply({"data": [row("r1"), row(spelt)]}), ours)
    assert found is not None
    assert found.request_id == spelt
    assert len(parse_rows(reply([row(ours), row(spelt)]))) == 1
    assert not matches(
        [candidate(request_id=spelt)], model=MODEL, body_sha256=body_digest(BODY), since=NOON, claimed=[ours]
    )


def test_only_404_means_that_the_history_lacks_a_request() -> None:
    assert parse_one(reply({"error": "Request r1 not found"}, 404), "r1") is None
    with pytest.raises(LumaRayUnavailable):
        parse_one(reply(HOSTILE["html"], 404), "r1")  # a gateway's page
    for answer in (
        *map(reply, HOSTILE.values()),
        reply(row("another")),
        reply({"data": []}),
        reply(row(), 500),
        reply(row(), 302),
    ):
        if answer.body == HOSTILE["list of the right thing"]:
            continue
        with pytest.raises(LumaRayUnavailable):
            parse_one(answer, "r1")


def candidate(**changes: Any) -> HistoryEntry:
    values: dict[str, Any] = {
        "request_id": "r1",
        "model": MODEL,
        "state": VendorStatus.PROCESSING,
        "body_sha256": body_digest(BODY),
        "created": NOON,
        "cost": None,
        "output_url": None,
        "error": None,
    }
    return HistoryEntry(**values | changes)


@pytest.mark.parametrize(
    ("found", "can_be"),
    [
        pytest.param(candidate(), True, id="the same in every way"),
        pytest.param(candidate(state=VendorStatus.FAILED), True, id="failed since"),
        pytest.param(candidate(state=VendorStatus.UNKNOWN), True, id="in an unknown state"),
        pytest.param(candidate(created=NOON + timedelta(hours=3)), True, id="later"),
        pytest.param(
            candidate(created=NOON - timedelta(seconds=119)), True, id="earlier, within the clocks' skew"
        ),
        pytest.param(candidate(created=NOON - timedelta(minutes=2, seconds=1)), False, id="too early"),
        pytest.param(candidate(created=None), False, id="at no known time"),
        pytest.param(candidate(model=MODEL + "-turbo"), False, id="a model that only contains the name"),
        pytest.param(candidate(model="luma-ray-3-2"), False, id="another model"),
        pytest.param(candidate(body_sha256=body_digest(BODY | {"loop": True})), False, id="other inputs"),
        pytest.param(candidate(body_sha256=None), False, id="unknown inputs"),
        pytest.param(candidate(request_id="mine"), False, id="claimed by another record"),
    ],
)
def test_a_row_can_be_the_lost_job(found: HistoryEntry, can_be: bool) -> None:
    rows = matches(
        [candidate(request_id="other", model="other"), found],
        model=MODEL,
        body_sha256=body_digest(BODY),
        since=NOON,
        claimed=iter(["mine"]),
    )
    assert rows == ([found] if can_be else [])


def test_all_that_match_are_named_in_order() -> None:
    rows = [candidate(request_id=name) for name in ("b", "a", "c")]
    assert matches(rows, model=MODEL, body_sha256=body_digest(BODY), since=NOON, claimed={"a"}) == [
        rows[0],
        rows[2],
    ]


EARLY = NOON - timedelta(minutes=3)
LATE = NOON + timedelta(minutes=20)
OTHER = body_digest(BODY | {"loop": True})


def near(*rows: HistoryEntry) -> list[NearMatch]:
    return near_matches(
        rows,
        model=MODEL,
        body_sha256=body_digest(BODY),
        since=NOON,
        until=NOON + timedelta(minutes=15),
        claimed=iter(["mine"]),
    )


@pytest.mark.parametrize(
    ("found", "text", "may_match"),
    [
        (candidate(created=EARLY), "r1 (same inputs, created too early, at 2026-11-22 11:57:00 UTC)", True),
        (candidate(created=LATE), "r1 (same inputs, created too late, at 2026-11-22 12:20:00 UTC)", True),
        (candidate(created=None), "r1 (same inputs, created at an unknown time)", True),
        (candidate(body_sha256=OTHER), "r1 (created in time, other inputs)", False),
        (candidate(body_sha256=None), "r1 (created in time, inputs not shown)", True),
        (
            candidate(state=VendorStatus.FAILED, created=EARLY),
            "r1 (same inputs, created too early, at 2026-11-22 11:57:00 UTC)",
            True,
        ),
    ],
)
def test_a_near_match_is_named_with_its_difference(found: HistoryEntry, text: str, may_match: bool) -> None:
    """Nothing is bought again over a job that only a clock or the history itself keeps from matching."""
    (missed,) = near(candidate(request_id="other", model="other"), found)
    assert missed.entry is found
    assert str(missed) == text
    assert missed.may_match is may_match


@pytest.mark.parametrize("created", [NOON - CLOCK_SKEW, NOON + timedelta(minutes=15) + CLOCK_SKEW])
def test_the_clocks_skew_is_allowed_for_to_the_last(created: datetime) -> None:
    assert near(candidate(created=created)) == []


def test_inputs_that_nobody_else_can_have_sent_match_from_any_time_before() -> None:
    rows = [candidate(created=EARLY)]
    options: dict[str, Any] = {"model": MODEL, "body_sha256": body_digest(BODY), "since": NOON, "claimed": ()}
    assert matches(rows, **options) == []
    assert matches(rows, **options, is_unique=True) == rows


def test_a_row_answers_a_poll_with_all_that_it_says() -> None:
    found = candidate(
        state=VendorStatus.COMPLETED, cost=Decimal("1.60"), output_url=VIDEO_URL, error="moderated"
    )
    assert found.status() == JobStatus(
        VendorStatus.COMPLETED, error="moderated", cost=Decimal("1.60"), output_url=VIDEO_URL
    )


@pytest.mark.parametrize(
    "far",
    [
        pytest.param(candidate(), id="a match is no near match"),
        pytest.param(candidate(created=NOON + timedelta(minutes=16)), id="a match within the clocks' skew"),
        pytest.param(candidate(created=EARLY, body_sha256=OTHER), id="too early and other inputs"),
        pytest.param(candidate(created=LATE, body_sha256=OTHER), id="too late and other inputs"),
        pytest.param(candidate(created=None, body_sha256=OTHER), id="at an unknown time and other inputs"),
        pytest.param(candidate(created=EARLY, model="luma-ray-3-2"), id="another model"),
        pytest.param(candidate(created=EARLY, request_id="MINE"), id="claimed"),
    ],
)
def test_a_row_with_more_differences_is_not_named(far: HistoryEntry) -> None:
    assert near(far) == []


def test_a_row_of_which_nothing_is_known_may_match() -> None:
    (named,) = near(candidate(created=None, body_sha256=None))
    assert named.may_match
    assert named.difference == "created at an unknown time, inputs not shown"


def test_without_an_end_nothing_is_too_late() -> None:
    rows = [candidate(created=NOON + timedelta(days=9))]
    options: dict[str, Any] = {"model": MODEL, "body_sha256": body_digest(BODY), "since": NOON, "claimed": ()}
    assert matches(rows, **options) == rows
    assert near_matches(rows, **options) == []
    assert matches(rows, **options, until=NOON) == []


def test_three_near_matches_are_named_those_with_the_same_inputs_first() -> None:
    rows = [
        candidate(request_id="a", body_sha256=OTHER),
        candidate(request_id="b", body_sha256=OTHER),
        candidate(request_id="c", body_sha256=None),
        candidate(request_id="d", created=EARLY),
    ]
    assert [missed.entry.request_id for missed in near(*rows)] == ["d", "c", "a"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": {"x": 1, "y": [1, {"q": 1, "p": 2}]}}, {"a": {"y": [1, {"p": 2, "q": 1}], "x": 1}}),
        ({"cfg": 0.1}, {"cfg": Decimal("0.1")}),
        ({"cfg": 0.1}, {"cfg": Decimal("0.10")}),
        ({"cfg": 5.0}, {"cfg": 5}),
        ({"cfg": 5}, {"cfg": Decimal("5.0")}),
        ({"cfg": [5.0, {"x": 1e3}]}, {"cfg": [5, {"x": 1000}]}),
        ({"prompt": "caf\u00e9"}, {"prompt": "caf\u00e9"}),
    ],
)
def test_the_same_inputs_have_one_digest(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert body_digest(ours) == body_digest(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ({"a": None}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": 0.1}, {"a": 0.2}),
        ({"prompt": "a road"}, {"prompt": "A road"}),
    ],
)
def test_other_inputs_have_another_digest(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert body_digest(ours) != body_digest(theirs)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=5), anything(), max_size=5))
def test_a_digest_survives_the_round_trip_to_the_vendor(body: dict[str, Any]) -> None:
    (found,) = parse_rows(reply([row(request_body=dict(reversed(body.items())))]))
    assert found.body_sha256 == body_digest(body)


@settings(deadline=None, max_examples=60)
@given(anyhow())
def test_no_reply_raises_any_other_error(answer: Reply) -> None:
    for found in (outcome(parse_rows, answer), outcome(parse_one, answer, "r1")):
        assert KEY not in str(found) or not isinstance(found, LumaRayError)
