"""What users inject: faults in all notations and top-ups, and the help that explains them."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
import requests

from airflow_provider_luma import simulator
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.simulator.faults import Fault
from airflow_provider_luma.simulator.kinds import CALLS, KINDS

CREDITS = "/v1/get-user-credits"


def control(sim: Simulator, what: str, body: object) -> requests.Response:
    text = body if isinstance(body, str) else json.dumps(body)
    return requests.post(f"{sim.url}/simulator/{what}", data=text, timeout=20)


@pytest.mark.parametrize(
    ("text", "given", "fault"),
    [
        ("submit:reset", {"call": "submit", "kind": "reset"}, Fault("submit", "reset")),
        ("submit:503", {"call": "submit", "kind": 503}, Fault("submit", "status", status=503)),
        (
            "status:429:3",
            {"call": "status", "kind": "429", "times": 3},
            Fault("status", "status", status=429, times=3),
        ),
        (
            '{"call": "submit", "kind": "gateway", "status": 504}',
            {"call": "submit", "kind": "gateway", "status": 504, "accepted": None},
            Fault("submit", "gateway", status=504, accepted=True),
        ),
        (
            "submit:failed:2",
            {"call": "submit", "kind": "failed", "times": 2},
            Fault("submit", "failed", times=2),
        ),
    ],
)
def test_status_codes_and_names_are_equivalent(
    sim: Simulator, text: str, given: dict[str, Any], fault: Fault
) -> None:
    assert Fault.from_text(text) == Fault.from_json(given) == fault
    sim.fault(**given)
    in_code, over_http = control(sim, "faults", given).json()["faults"]
    assert Fault(**over_http) == Fault(**in_code) == fault


def test_a_number_as_kind_over_http(sim: Simulator, api: Any) -> None:
    assert control(sim, "faults", {"call": "credits", "kind": 503, "times": 2}).status_code == 200
    assert [api.get(CREDITS).status_code for _ in range(3)] == [503, 503, 200]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "object"),
        (None, "object"),
        ({"call": "submit"}, "a call and a kind"),
        ({"call": "nothing", "kind": "reset"}, "call must be"),
        ({"call": "submit", "kind": "nothing"}, "kind must be"),
        ({"call": "submit", "kind": True}, "kind must not be True"),
        ({"call": "submit", "kind": None}, "kind must not be None"),
        ({"call": "submit", "kind": 99}, "status must be"),
        ({"call": "submit", "kind": 1000}, "status must be"),
        ({"call": "submit", "kind": "reset", "times": "2"}, "times must not be"),
        ({"call": "submit", "kind": "reset", "times": None}, "times must not be"),
        ({"call": "submit", "kind": "reset", "times": 0}, "times must be"),
        ({"call": "submit", "kind": "reset", "accepted": 1}, "accepted must not be"),
        ({"call": "submit", "kind": "reset", "seconds": "1"}, "seconds must not be"),
        ('{"call": "submit", "kind": "reset", "seconds": Infinity}', "seconds must be"),
        ({"call": "download", "kind": "cut", "bytes": -1}, "bytes must not be"),
        ({"call": "download", "kind": "cut", "accepted": False}, "accepted must not be"),
        ({"call": "submit", "kind": "odd_id", "style": "roman"}, "style of odd_id must be"),
        ({"call": "submit", "kind": "reset", "style": "raw"}, "style of reset must be"),
        ({"call": "status", "kind": "failed"}, "the call of failed must be"),
        ({"call": "submit", "kind": "reset", "tims": 2}, "unknown fields: tims"),
    ],
)
def test_a_wrong_fault_is_explained(sim: Simulator, given: object, named: str) -> None:
    reply = control(sim, "faults", given)
    assert reply.status_code == 400
    assert named in reply.json()["error"]


def test_a_job_that_is_accepted_and_fails(sim: Simulator, api: Any) -> None:
    sim.fault("submit", "failed")
    sim.fault("submit", "failed", message="content moderation")
    first, second, third = api.job(), api.job(), api.job()
    sim.advance(60)

    assert api.status(first)["error"] == "The model could not process the request"
    assert api.status(second)["error"] == "content moderation"
    assert api.status(third)["status"] == "COMPLETED"
    assert sim.charges == 1


def test_a_v1_job_that_fails(sim: Simulator, api: Any) -> None:
    sim.fault("v1", "failed", message="boom")
    reply = api.v1()
    assert (reply.status_code, reply.json()) == (422, {"error": "boom"})


def test_a_refused_job_uses_the_fault_up(sim: Simulator, api: Any) -> None:
    sim.fault("submit", "failed")
    assert api.submit(loop="yes").status_code == 400
    request_id = api.job()
    sim.advance(60)
    assert api.status(request_id)["status"] == "COMPLETED"


def test_a_top_up(sim: Simulator, api: Any) -> None:
    api.job()
    sim.advance(60)
    assert control(sim, "credits", {"credits": "50"}).json() == {"balance": "68.4"}
    assert control(sim, "credits", '{"credits": 0.1}').json() == {"balance": "68.5"}
    assert api.get(CREDITS).json() == {"credits": 68.5, "free-credits": 0.0}
    sim.top_up("1.5")
    assert sim.balance == Decimal("70")
    assert sim.spent == Decimal("1.6")


def test_a_top_up_lets_the_next_job_in(sim: Simulator, api: Any) -> None:
    sim.set_credits("1")
    assert api.submit().status_code == 402
    control(sim, "credits", {"credits": "0.6"})
    assert api.submit().status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        *("", "50", "null", "[]", "{}", '{"credits": "1", "free": "1"}'),
        *(f'{{"credits": {value}}}' for value in ("NaN", "Infinity", "null", "true", "0", "-1", "[]", "{}")),
        *(f'{{"credits": "{value}"}}' for value in ("", "much", "0", "-1", "nan", "inf")),
    ],
)
def test_a_wrong_top_up(sim: Simulator, body: str) -> None:
    reply = control(sim, "credits", body)
    assert reply.status_code == 400
    assert list(reply.json()) == ["error"]
    assert sim.balance == 20


def test_the_help_explains_every_fault() -> None:
    command = [sys.executable, "-m", "airflow_provider_luma.simulator", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    for word in (*CALLS, *KINDS, *(style for kind in KINDS.values() for style in kind.styles)):
        assert word in text
    assert text.count("  python -m airflow_provider_luma.simulator") == 2
    assert text.count("curl -d") == 2


def test_the_package_docstring_lists_the_routes() -> None:
    told = simulator.__doc__ or ""
    for words in ("/simulator/faults", "/simulator/credits", "/simulator/state", '"kind": 503', '"failed"'):
        assert words in told
