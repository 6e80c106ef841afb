"""Polling a job, and finding one in the vendor's history; all free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayError,
    LumaRayRateLimited,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.limiter import Rank
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.history import body_digest, matches
from airflow_provider_luma.segmind.replies import VendorStatus
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.hooks.peer import HANG_UP, RESET, Peer, http, to_json
from tests.support import set_connection

HookAt = Callable[..., tuple[LumaRayHook, Peer]]
Ask = Callable[[LumaRayHook], object]
QUESTIONS = {
    "status": lambda hook: hook.get_status("r1", Rank.URGENT),
    "result": lambda hook: hook.get_result("r1"),
    "history_one": lambda hook: hook.find_job("r1"),
    "history": lambda hook: hook.find_jobs("luma-ray-img-2-video", datetime.now(UTC)),
}
#: The same where the caller asks again anyway.
POLLS = {
    "status": lambda hook: hook.get_status("r1"),
    "history_one": lambda hook: hook.find_job("r1", Rank.POLL),
    "history": lambda hook: hook.newest_jobs(),
    "credits": lambda hook: hook.get_credits(Rank.BALANCE),
}
each_question = pytest.mark.parametrize(("call", "ask"), QUESTIONS.items(), ids=QUESTIONS)


def test_a_job_from_its_submit_to_its_video(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest
) -> None:
    request_id = hook.submit(request_)
    assert hook.get_status(request_id).state in (
        VendorStatus.QUEUED,
        VendorStatus.PROCESSING,
        VendorStatus.COMPLETED,
    )
    simulator.advance(60)
    status, result = hook.get_status(request_id), hook.get_result(request_id)
    assert (status.state, status.cost, status.remaining_credits) == (
        VendorStatus.COMPLETED,
        Decimal("1.6"),
        Decimal("18.4"),
    )
    assert (result.state, result.cost, result.remaining_credits) == (
        VendorStatus.COMPLETED,
        Decimal("1.6"),
        Decimal("18.4"),
    )
    assert result.url is not None
    assert result.url.startswith(simulator.url)
    assert result.body["video"]["url"] == result.url
    assert simulator.charges == 1


def test_a_job_that_failed(simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest) -> None:
    simulator.fail_next("The frame shows a person")
    request_id = hook.submit(request_)
    simulator.advance(60)
    status = hook.get_status(request_id)
    assert (status.state, status.error) == (VendorStatus.FAILED, "The frame shows a person")
    result = hook.get_result(request_id)
    assert (result.state, result.url) == (VendorStatus.FAILED, None)
    row = hook.find_job(request_id)
    assert row is not None
    assert (row.state, row.error, row.output_url) == (VendorStatus.FAILED, "The frame shows a person", None)
    assert simulator.charges == 0


def test_the_history_knows_a_job_when_its_record_has_expired(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest
) -> None:
    request_id = hook.submit(request_)
    simulator.advance(60)
    url = hook.get_result(request_id).url
    simulator.advance(3601)
    assert hook.get_status(request_id).state is VendorStatus.NOT_FOUND
    assert hook.get_result(request_id).state is VendorStatus.NOT_FOUND
    row = hook.find_job(request_id)
    assert row is not None
    assert (row.request_id, row.model, row.state) == (request_id, request_.model, VendorStatus.COMPLETED)
    assert (row.cost, row.output_url, row.body_sha256) == (Decimal("1.6"), url, body_digest(request_.body()))


def test_an_id_that_never_was_is_not_found_anywhere(hook: LumaRayHook) -> None:
    assert hook.get_status("never").state is VendorStatus.NOT_FOUND
    assert hook.get_result("never").state is VendorStatus.NOT_FOUND
    assert hook.find_job("never") is None


@each_question
@pytest.mark.parametrize(
    ("kind", "status"),
    [("status", 500), ("status", 504), ("html", 502), ("reset", None), ("truncated", None)],
)
def test_three_bad_answers_are_survived(
    simulator: Simulator, hook: LumaRayHook, call: str, ask: Ask, kind: str, status: int | None
) -> None:
    simulator.fault(call, kind, status=status, times=3)
    ask(hook)
    assert simulator.calls[call] >= 4
    assert [entry.status for entry in simulator.requests if entry.call == call][3] in (200, 404)


@each_question
def test_an_outage_is_reported_after_four_tries(hook_at: HookAt, call: str, ask: Ask) -> None:
    hook, host = hook_at(HANG_UP, RESET, b"garbage\r\n\r\n", HANG_UP)
    with pytest.raises(LumaRayUnavailable, match="after 4 tries"):
        ask(hook)
    assert [seen.method for seen in host.seen] == ["GET"] * 4


@each_question
def test_a_rate_limit_is_reported_after_four_tries(
    simulator: Simulator, hook: LumaRayHook, call: str, ask: Ask
) -> None:
    simulator.fault(call, "status", status=429, seconds=0, times=9)
    with pytest.raises(LumaRayRateLimited):
        ask(hook)
    assert simulator.calls == {call: 4}


@pytest.mark.parametrize(("call", "ask"), POLLS.items(), ids=POLLS)
@pytest.mark.parametrize(("kind", "status"), [("reset", None), ("truncated", None), ("status", 429)])
def test_a_poll_is_tried_once_as_the_next_one_follows_anyway(
    simulator: Simulator, hook: LumaRayHook, call: str, ask: Ask, kind: str, status: int | None
) -> None:
    simulator.fault(call, kind, status=status, times=9)
    with pytest.raises((LumaRayUnavailable, LumaRayRateLimited)):
        ask(hook)
    assert simulator.calls == {call: 1}


@each_question
def test_a_wrong_key_is_reported_at_once(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, call: str, ask: Ask
) -> None:
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    with pytest.raises(LumaRayAuthenticationError) as caught:
        ask(LumaRayHook())
    assert caught.value.status_code == 401
    assert simulator.calls == {call: 1}


@pytest.mark.parametrize("status", [400, 405, 500, 502, 503])
def test_an_inconclusive_poll_means_still_running(
    simulator: Simulator, hook: LumaRayHook, status: int
) -> None:
    simulator.fault("status", "html", status=status, times=9)
    assert hook.get_status("r1").state is VendorStatus.UNKNOWN


@each_question
@pytest.mark.parametrize("request_id", ["../../v1/get-user-credits", "a/b?c=d#e", "caf\u00e9 1", "%2e%2e"])
def test_an_id_cannot_change_the_host_or_path(hook_at: HookAt, call: str, ask: Ask, request_id: str) -> None:
    hook, host = hook_at(to_json({"error": "not found"}, 404))
    for verb in (hook.get_status, hook.get_result, hook.find_job):
        verb(request_id)
    targets = [seen.target for seen in host.seen]
    assert [target.count("/") for target in targets] == [4, 3, 3]
    assert targets[0].startswith("/v2/requests/")
    assert targets[0].endswith("/status")
    assert targets[1].startswith("/v2/requests/")
    assert targets[2].startswith("/inference-request/request-history/")
    assert not any(set("?#") & set(target) for target in targets)


def test_a_redirected_poll_is_not_followed(hook_at: HookAt, peer: Callable[..., Peer]) -> None:
    elsewhere = peer(to_json({"status": "FAILED", "request_id": "r1"}))
    hook, host = hook_at(http(302, Location=f"{elsewhere.url}/v2/requests/r1/status"))
    assert hook.get_status("r1").state is VendorStatus.UNKNOWN
    assert len(host.seen) == 1
    assert elsewhere.seen == []


def test_jobs_are_found_by_what_was_sent(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest
) -> None:
    before = datetime.now(UTC)
    lost = hook.submit(request_)
    hook.submit(replace(request_, prompt="another"))
    rows = hook.find_jobs(request_.model, before)
    assert len(rows) == 2
    found = matches(
        rows, model=request_.model, body_sha256=body_digest(request_.body()), since=before, claimed=()
    )
    assert [row.request_id for row in found] == [lost]
    assert hook.find_jobs("luma-ray-3-2", before) == []


def test_an_empty_history_is_an_answer(hook: LumaRayHook) -> None:
    assert hook.find_jobs("luma-ray-img-2-video", datetime.now(UTC)) == []


def rows(first: int, last: int) -> list[dict[str, object]]:
    return [{"request_id": f"r{number}", "model_name": "m"} for number in range(first, last)]


@pytest.mark.parametrize(
    ("pages", "expected", "calls"),
    [
        pytest.param([rows(0, 100), rows(100, 200), rows(200, 230), []], 230, 4, id="230 jobs"),
        pytest.param(
            [rows(0, 100), rows(99, 199), rows(198, 200), []], 200, 4, id="jobs that moved on meanwhile"
        ),
        pytest.param([rows(0, 100), rows(0, 100)], 100, 2, id="a server that ignores the page"),
        pytest.param([rows(0, 3) * 2, []], 3, 2, id="several outputs a job"),
        pytest.param(
            [rows(100 * page, 100 * page + 100) for page in range(40)], 2000, 20, id="an end to all pages"
        ),
    ],
)
def test_all_pages_are_read(
    hook_at: HookAt, pages: list[list[dict[str, object]]], expected: int, calls: int
) -> None:
    hook, host = hook_at(*(to_json({"data": page}) for page in pages))
    found = hook.find_jobs("m", datetime.now(UTC))
    assert [row.request_id for row in found] == [f"r{number}" for number in range(expected)]
    assert len(host.seen) in (calls, calls - 1), "one page more than is needed, at most"


def test_more_than_a_hundred_jobs_are_found(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest
) -> None:
    simulator.set_credits("1000")
    before = datetime.now(UTC)
    ids = [hook.submit(replace(request_, model="ray-flash-2-720p", start_frame=None)) for _ in range(103)]
    assert {row.request_id for row in hook.find_jobs("ray-flash-2-720p", before)} == set(ids)


@pytest.mark.parametrize(
    ("since", "from_date"),
    [
        (timedelta(0), timedelta(days=1)),
        (timedelta(days=7), timedelta(days=8)),
        (timedelta(days=400), timedelta(days=30)),
    ],
)
def test_the_history_is_queried_within_the_vendors_retention(
    hook_at: HookAt, since: timedelta, from_date: timedelta
) -> None:
    hook, host = hook_at(to_json({"data": []}))
    now = datetime.now(UTC)
    hook.find_jobs("luma-ray-3-2", now - since)
    target = urlsplit(host.seen[0].target)
    query = {name: value[0] for name, value in parse_qs(target.query).items()}
    assert target.path == "/inference-request/request-history"
    assert query["model_name"] == "luma-ray-3-2"
    assert query["page"] == "1"
    assert query["per_page"] == "100"
    assert (query["sort_by"], query["sort_order"]) == ("model_created", "desc")
    assert "status" not in query, "in-flight and failed jobs count too"
    asked = datetime.fromisoformat(query["from_date"]).replace(tzinfo=UTC)
    assert timedelta(0) <= now - from_date - asked < timedelta(days=1, minutes=1)


def test_an_unreadable_page_is_not_the_last_page(hook_at: HookAt) -> None:
    hook, _ = hook_at(to_json({"data": rows(0, 100)}), http(200, "<html>"))
    with pytest.raises(LumaRayUnavailable):
        hook.find_jobs("m", datetime.now(UTC))


def test_the_three_hosts_can_differ(
    hook_at: HookAt, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch, frame: object
) -> None:
    api, upload, history = (peer(to_json({"error": "not found"}, 404)) for _ in range(3))
    set_connection(monkeypatch, api.url, upload_url=upload.url + "/", history_url=history.url + "/h")
    hook = LumaRayHook()
    hook.get_status("r1")
    hook.find_job("r1")
    with pytest.raises(LumaRayError):
        hook.upload_image(frame)  # type: ignore[arg-type]
    assert [seen.target for seen in api.seen] == ["/v2/requests/r1/status"]
    assert [seen.target for seen in history.seen] == ["/h/inference-request/request-history/r1"]
    assert [seen.target for seen in upload.seen] == ["/upload-asset"]
    assert all("x-api-key" in host.seen[0].headers for host in (api, upload, history))
