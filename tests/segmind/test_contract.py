"""The judges of the vendor's contract: over transcripts, over one flaw at a time, and over any reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.segmind.contract import ASSUMPTIONS, Outcome, examine
from airflow_provider_luma.segmind.transcript import Exchange, load
from tests.segmind.replies import HOSTILE, reply

#: One of the simulator with a purchase; put a user's next to it to hold the provider to what the vendor did.
TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.json"))
SIMULATOR = json.loads((Path(__file__).parent / "transcripts" / "simulator.json").read_text())

Told = dict[str, Any]


def verdicts(told: Told) -> dict[str, Outcome]:
    return {one.assumption.text: one.outcome for one in examine(load(told))}


def of(told: Told, call: str) -> list[Told]:
    """Return the JSON of the replies to a call."""
    found = [one["reply"] for one in told["exchanges"] if one["call"] == call]
    assert found, call
    return found


def rows(told: Told) -> list[Told]:
    return [row for answer in of(told, "history") for row in answer["json"]["data"]]


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_recorded_vendor_breaks_no_assumption(path: Path) -> None:
    found = verdicts(json.loads(path.read_text()))
    assert Outcome.BROKEN not in found.values(), found


def test_a_purchase_tells_all_but_the_rate_limit() -> None:
    found = verdicts(SIMULATOR)
    assert [text for text, outcome in found.items() if outcome is Outcome.UNKNOWN] == [
        "the rate limit's reset is a time in UTC"
    ]


def test_assumptions_are_named_once_and_say_where() -> None:
    assert len({one.text for one in ASSUMPTIONS}) == len(ASSUMPTIONS)
    package = Path(__file__).parents[2] / "airflow_provider_luma"
    for one in ASSUMPTIONS:
        module, _, name = one.where.partition(" ")
        assert (package / module).exists(), one.where
        assert not name or name in (package / module).read_text(), one.where


def _answer(call: str, status: int, body: object, **headers: str) -> Callable[[Told], None]:
    def change(told: Told) -> None:
        for answer in of(told, call):
            answer.pop("text", None)
            answer |= {"status": status, "json": body}
            answer["headers"] |= {name.replace("_", "-"): value for name, value in headers.items()}

    return change


def _page(call: str, status: int) -> Callable[[Told], None]:
    def change(told: Told) -> None:
        for answer in of(told, call):
            answer.pop("json", None)
            answer |= {"status": status, "text": "<html><body>no</body></html>"}

    return change


def _rows(change_row: Callable[[Told], object]) -> Callable[[Told], None]:
    def change(told: Told) -> None:
        for row in rows(told):
            change_row(row)

    return change


def _each(call: str, change_body: Callable[[Any], object]) -> Callable[[Told], None]:
    def change(told: Told) -> None:
        for answer in of(told, call):
            change_body(answer["json"])

    return change


def _oldest_first(told: Told) -> None:
    for answer in of(told, "history"):
        answer["json"]["data"].reverse()


def _same_upload(told: Told) -> None:
    for answer in of(told, "upload"):
        answer["json"]["file_urls"] = ["https://images.example/same.png"]


def _same_page(told: Told) -> None:
    (first,), (second,) = of(told, "history/page 1"), of(told, "history/page 2")
    second["json"] = first["json"]


def _undated(told: Told) -> None:
    del of(told, "credits")[0]["headers"]["date"]


def _shift(row: Told, hours: int) -> None:
    moved = datetime.fromisoformat(row["model_created"]) + timedelta(hours=hours)
    row["model_created"] = moved.replace(tzinfo=None).isoformat()


def _late(told: Told) -> None:
    """The job's row is first seen three minutes after the submit."""
    submitted = next(one for one in told["exchanges"] if one["call"] == "submit")
    for one in told["exchanges"]:
        if one["call"] == "history" and one["at"] > submitted["at"]:
            one["at"] = (datetime.fromisoformat(one["at"]) + timedelta(minutes=3)).isoformat()


def _never_listed(told: Told) -> None:
    job = of(told, "submit")[0]["json"]["request_id"]
    for answer in of(told, "history"):
        answer["json"]["data"] = [row for row in answer["json"]["data"] if row["request_id"] != job]
    _late(told)


def _greedy(told: Told) -> None:
    of(told, "history/page 1")[0]["json"]["data"] = rows(told)[:3]


def _filtered(told: Told) -> None:
    answer = of(told, "history/one model")[0]["json"]
    answer["data"] = answer["data"][1:]


#: One flaw, and the assumptions that it breaks.
FLAWS: dict[str, tuple[Callable[[Told], None], set[str]]] = {
    "key": (
        _answer("credits", 401, {"error": "Invalid API key"}),
        {"the key is accepted", "the balance is credits and free-credits, in USD"},
    ),
    "balance": (_answer("credits", 200, {"balance": 7}), {"the balance is credits and free-credits, in USD"}),
    "page for the balance": (_page("credits", 200), {"the balance is credits and free-credits, in USD"}),
    "no free credits": (
        _answer("credits", 200, {"credits": 20}),
        {"the balance is credits and free-credits, in USD"},
    ),
    "wrong key": (
        _answer("credits/wrong key", 200, {"credits": 0, "free-credits": 0}),
        {"a wrong key gets a 401"},
    ),
    "wrong key of history": (
        _answer("history/wrong key", 200, {"data": []}),
        {"the history refuses a wrong key alike"},
    ),
    "page for a status": (
        _page("status/unknown id", 404),
        {"an unknown id is a 404 of status", "a refusal says why in error"},
    ),
    "unknown id in a status": (
        _answer("status/unknown id", 200, {"status": "QUEUED"}),
        {"an unknown id is a 404 of status"},
    ),
    "page for a result": (
        _page("result/unknown id", 404),
        {"an unknown id is a 404 of result", "a refusal says why in error"},
    ),
    "page for a row": (_page("history_one/unknown id", 404), {"an unknown id is a 404 of history"}),
    "detail": (
        _answer("result/unknown id", 404, {"detail": "Not found"}),
        {"a refusal says why in error"},
    ),
    "slug": (
        _answer("slug/unknown", 200, {"request_id": "one"}),
        {"an unknown slug is a 404 or a 405"},
    ),
    "no rows field": (
        _answer("history", 200, {"total": 0}),
        {
            "the history is a list of rows in some envelope",
            "a row has the fields that are read",
            "a row's status is COMPLETED, FAILED or PENDING",
            "a row's inputs are an object",
            "rows come newest first",
            "their times are UTC",
            "a row appears within two minutes",
            "a page has as many rows as asked for",
            "model_name selects a model's rows",
        },
    ),
    "fields": (_rows(lambda row: row.pop("credits_deduction")), {"a row has the fields that are read"}),
    "words": (
        _rows(lambda row: row.update(model_status="SUCCEEDED")),
        {"a row's status is COMPLETED, FAILED or PENDING"},
    ),
    "inputs": (_rows(lambda row: row.update(request_body=None)), {"a row's inputs are an object"}),
    "order": (_oldest_first, {"rows come newest first"}),
    "times": (_rows(lambda row: row.update(model_created="yesterday")), {"their times are UTC"}),
    "a zone ahead": (_rows(lambda row: _shift(row, 8)), {"their times are UTC"}),
    "a zone behind": (_rows(lambda row: _shift(row, -7)), {"their times are UTC"}),
    "rfc": (
        _rows(lambda row: row.update(model_created="Sat, 28 Nov 2026 13:21:51 GMT")),
        {"their times are UTC"},
    ),
    "another name": (
        _rows(lambda row: row.update(created_at=row.pop("model_created"))),
        {"a row has the fields that are read"},
    ),
    "late": (_late, {"a row appears within two minutes"}),
    "never": (_never_listed, {"a row appears within two minutes"}),
    "page size": (_greedy, {"a page has as many rows as asked for"}),
    "pages": (_same_page, {"the next page has other rows"}),
    "filter": (_filtered, {"model_name selects a model's rows"}),
    "date": (_undated, {"replies carry a Date"}),
    "reset": (
        _answer("credits", 200, {"credits": 20, "free-credits": 0}, x_rate_limit_reset_at_utc="soon"),
        {"the rate limit's reset is a time in UTC"},
    ),
    "redirect": (
        _answer("slug/unknown", 302, {}),
        {"the API does not redirect", "an unknown slug is a 404 or a 405"},
    ),
    "upload": (
        _answer("upload", 200, {"files": []}),
        {"an upload returns its URL", "the same picture gets another URL each time"},
    ),
    "uploads": (_same_upload, {"the same picture gets another URL each time"}),
    "submit": (
        _answer("submit", 200, {"id": "one"}),
        {"a submit returns the job's id"},
    ),
    "retired": (
        _answer("submit", 410, {"error": "Model has been retired"}),
        {"a submit returns the job's id"},
    ),
    "status words": (
        _each("status", lambda body: body.update(status="DONE")),
        {"status is QUEUED, PROCESSING, then COMPLETED"},
    ),
    "cost": (
        _each("status", lambda body: body.pop("metrics")),
        {"a completed job says what it cost, and the balance"},
    ),
    "no video": (_answer("result", 200, {"status": "COMPLETED"}), {"the result names the video"}),
    "other inputs": (
        _each("history_one", lambda body: body["request_body"].pop("start_frame")),
        {"the history shows the inputs as sent"},
    ),
    "another job": (
        _each("history_one", lambda body: body.update(request_id="other")),
        {"the history finds one job by its id", "the history shows the inputs as sent"},
    ),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_one_flaw_breaks_what_relies_on_it_and_nothing_else(flaw: str) -> None:
    change, broken = FLAWS[flaw]
    told = deepcopy(SIMULATOR)
    change(told)
    assert {text for text, outcome in verdicts(told).items() if outcome is Outcome.BROKEN} == broken


def test_each_assumption_can_break() -> None:
    """All but two: a broken download is an error, and a second charge cannot be told from another job's."""
    broken = set().union(*(one for _, one in FLAWS.values()))
    assert {one.text for one in ASSUMPTIONS} - broken == {
        "the video is an MP4, public and without a key",
        "a clip is charged once",
    }


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, {"error": "x"}), (503, {}), (429, {"error": "Rate limit exceeded"})],
)
def test_trouble_that_passes_proves_nothing(status: int, body: object) -> None:
    told = deepcopy(SIMULATOR)
    for call in {one["call"] for one in told["exchanges"]} - {"download"}:
        _answer(call, status, body)(told)
    assert Outcome.BROKEN not in verdicts(told).values()


def test_no_answer_proves_nothing() -> None:
    told = deepcopy(SIMULATOR)
    for one in told["exchanges"]:
        one.pop("reply", None)
        one["problem"] = "No answer from the host."
    for one in examine(load(told)):
        assert one.outcome is Outcome.UNKNOWN
        assert one.seen in ("No answer from the host.", "there are no replies", "no header about a limit")
    assert {one.outcome for one in examine([])} == {Outcome.UNKNOWN}


@pytest.mark.parametrize("missing", [None, *sorted({one["call"] for one in SIMULATOR["exchanges"]})])
def test_calls_may_be_missing(missing: str | None) -> None:
    exchanges = load(SIMULATOR)
    for call in {one.call for one in exchanges}:
        examine([one for one in exchanges if one.call not in (call, missing)])
        examine([one for one in exchanges if one.call in (call, missing)])


def test_lack_of_credits_breaks_nothing() -> None:
    told = deepcopy(SIMULATOR)
    _answer("submit", 402, {"error": "Insufficient credits"})(told)
    assert verdicts(told)["a submit returns the job's id"] is Outcome.UNKNOWN


def test_an_empty_history_breaks_nothing() -> None:
    told = deepcopy(SIMULATOR)
    told["exchanges"] = [one for one in told["exchanges"] if "submit" not in one["call"]]
    for one in told["exchanges"]:
        if one["call"].startswith("history") and "data" in one["reply"].get("json", {}):
            one["reply"]["json"]["data"] = []
    found = verdicts(told)
    assert Outcome.BROKEN not in found.values()
    assert found["rows come newest first"] is Outcome.UNKNOWN


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_every_judge_reads_any_reply(body: bytes, status: int) -> None:
    exchanges = load(SIMULATOR)
    for call in sorted({one.call for one in exchanges}):
        changed = [
            Exchange(one.call, one.method, one.url, one.at, reply=reply(body, status), detail=one.detail)
            if one.call == call and call != "download"
            else one
            for one in exchanges
        ]
        for one in examine(changed):
            assert one.seen.isprintable()
            assert len(one.seen) < 130
