"""What is accepted, and what is refused and how, according to the vendor's contract."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests

from airflow_provider_luma.simulator import Simulator

LUMA = "luma-ray-img-2-video"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("slug", "body", "status", "named"),
    [
        (LUMA, {}, 400, "prompt"),
        (LUMA, {"prompt": ""}, 400, "prompt"),
        (LUMA, {"prompt": 7}, 400, "prompt"),
        (LUMA, [], 400, "object"),
        (LUMA, {"prompt": "a", "loop": "true"}, 400, "loop"),
        (LUMA, {"prompt": "a", "loop": 1}, 400, "loop"),
        (LUMA, {"prompt": "a", "start_frame": None}, 400, "start_frame"),
        (LUMA, {"prompt": "a", "concepts": "orbit_left"}, 400, "concepts"),
        (LUMA, {"prompt": "a", "concepts": [1]}, 400, "concepts"),
        (LUMA, {"prompt": "a", "concepts": ["somersault"]}, 406, "somersault"),
        (LUMA, {"prompt": "a", "resolution": "9000p"}, 406, "9000p"),
        (LUMA, {"prompt": "a", "aspect_ratio": "3:4"}, 406, "3:4"),
        ("luma-ray-3-2", {"prompt": "a", "duration": 5}, 400, "duration"),
        ("luma-ray-3-2", {"prompt": "a", "duration": "5"}, 406, "duration"),
        ("luma-ray-3-2", {"prompt": "a", "resolution": "4k"}, 406, "resolution"),
        ("luma-ray-3-2", {"prompt": "a", "start_frame": "aGVsbG8="}, 400, "URL"),
        ("ray-flash-2-720p", {"prompt": "a", "duration": "5"}, 400, "duration"),
        ("ray-flash-2-720p", {"prompt": "a", "duration": 6}, 406, "duration"),
        ("ray-flash-2-720p", {"prompt": "a", "start_image_url": "aGVsbG8="}, 400, "URL"),
        ("ray-flash-2-720p", {"prompt": "a", "aspect_ratio": "2:3"}, 406, "2:3"),
        ("luma-ray-9", {"prompt": "a"}, 404, "luma-ray-9"),
    ],
)
def test_a_refused_body(
    sim: Simulator, api: Any, version: str, slug: str, body: Any, status: int, named: str
) -> None:
    reply = api.call("POST", f"/{version}/{slug}", json=body)

    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert named in reply.json()["error"]
    assert sim.jobs == []


@pytest.mark.parametrize(
    ("slug", "body"),
    [
        (LUMA, {"loop": True, "resolution": "1080p", "aspect_ratio": "21:9", "concepts": ["pov", "zoom_in"]}),
        (LUMA, {"some_future_field": {"x": 1}}),
        ("luma-ray-3-2", {"duration": "5s", "aspect_ratio": "16:9", "resolution": "1080p"}),
        ("ray-flash-2-720p", {"duration": 9, "loop": False, "aspect_ratio": "3:4"}),
    ],
)
def test_an_accepted_body_is_kept_as_sent(sim: Simulator, api: Any, slug: str, body: dict[str, Any]) -> None:
    api.job(slug, **body)

    assert sim.jobs[0].slug == slug
    assert sim.jobs[0].body == {"prompt": "a road", **body}


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b'{"prompt": ', JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b'{"prompt": "a"}', {"Content-Type": "text/plain"}, 406),
        (b'{"prompt": "a"}', {"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_body_encoding(api: Any, data: bytes, headers: dict[str, str], status: int) -> None:
    assert api.call("POST", f"/v2/{LUMA}", data=data, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v1/{LUMA}"),
        ("POST", f"/v2/{LUMA}"),
        ("GET", "/v2/requests/x/status"),
        ("GET", "/v2/requests/x"),
        ("GET", "/v1/requests/x"),
        ("GET", "/v1/get-user-credits"),
        ("GET", "/inference-request/request-history"),
        ("GET", "/inference-request/request-history/x"),
        ("POST", "/upload-asset"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": "SG_0123456789abcdef"}, {"Authorization": "Bearer SG_simulator"}],
    ids=["none", "wrong", "bearer"],
)
def test_only_the_key_header_authenticates(
    sim: Simulator, method: str, path: str, headers: dict[str, str]
) -> None:
    reply = requests.request(method, sim.url + path, json={"prompt": "a"}, headers=headers, timeout=20)

    assert reply.status_code == 401
    assert "key" in reply.json()["error"]
    assert sim.requests[-1].has_key is ("x-api-key" in headers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/v2/{LUMA}"),
        ("PUT", f"/v1/{LUMA}"),
        ("DELETE", "/v2/requests/x"),
        ("POST", "/v2/requests/x/status"),
        ("GET", "/upload-asset"),
    ],
)
def test_a_wrong_method_gets_a_page(api: Any, method: str, path: str) -> None:
    reply = api.call(method, path)

    assert reply.status_code == 405
    assert reply.headers["Content-Type"].startswith("text/html")


def test_the_life_of_a_job(sim: Simulator, api: Any) -> None:
    submitted = api.submit().json()
    request_id = submitted["request_id"]
    assert str(uuid.UUID(request_id)) == request_id
    assert submitted == {
        "request_id": request_id,
        "status": "QUEUED",
        "poll_url": f"{sim.url}/v1/requests/{request_id}",
        "status_url": f"{sim.url}/v2/requests/{request_id}/status",
        "response_url": f"{sim.url}/v2/requests/{request_id}",
    }
    assert api.status(request_id) == {"status": "QUEUED", "request_id": request_id, "metrics": {}}
    sim.advance(30)
    assert api.status(request_id) == {"status": "PROCESSING", "request_id": request_id, "metrics": {}}
    assert "output" not in api.result(request_id)
    sim.advance(30)

    status = api.status(request_id)
    assert status["status"] == "COMPLETED"
    assert status["metrics"]["cost"] == 1.6
    assert status["metrics"]["remaining_credits"] == 18.4
    assert status["metrics"]["total_time"] == pytest.approx(60, abs=1)
    result = api.result(request_id)
    assert result == api.get(f"/v1/requests/{request_id}").json()
    assert result["output"] == result["video"]["url"]
    assert result["error"] is None
    video = api.download(result["output"])
    assert len(video.content) == result["video"]["file_size"]
    assert video.headers["Content-Type"] == result["video"]["content_type"] == "video/mp4"


def test_a_failed_job_is_reported_with_422(sim: Simulator, api: Any) -> None:
    sim.fail_next(error="content moderation")
    request_id = api.job()
    sim.advance(60)

    for path in (f"/v2/requests/{request_id}/status", f"/v2/requests/{request_id}"):
        reply = api.get(path)
        assert reply.status_code == 422
        assert reply.json()["status"] == "FAILED"
        assert reply.json()["error"] == "content moderation"
        assert reply.json()["metrics"]["cost"] == 0


@pytest.mark.parametrize("path", ["/v2/requests/{}/status", "/v2/requests/{}", "/v1/requests/{}"])
def test_records_live_for_an_hour_and_look_unknown_afterwards(sim: Simulator, api: Any, path: str) -> None:
    request_id = api.job()
    sim.advance(3590)
    assert api.get(path.format(request_id)).status_code == 200
    sim.advance(20)

    for missing in (request_id, "never-existed"):
        reply = api.get(path.format(missing))
        assert reply.status_code == 404
        assert reply.json() == {"error": f"Request {missing} not found"}


def test_files_live_for_seven_days(sim: Simulator, api: Any) -> None:
    request_id = api.job()
    sim.advance(60)
    url = api.result(request_id)["output"]
    sim.advance(7 * 86400 - 10)
    assert api.download(url).status_code == 200
    sim.advance(20)
    assert api.download(url).status_code == 404


def test_ranges_of_a_file(sim: Simulator, api: Any) -> None:
    request_id = api.job()
    sim.advance(60)
    url = api.result(request_id)["output"]
    whole = api.download(url).content

    part = api.download(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
    assert sim.requests[-1].status == 206
    head = requests.head(url, timeout=20)
    assert int(head.headers["Content-Length"]) == len(whole)
    assert api.download(url, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


@pytest.mark.parametrize("headers", [{"x-api-key": "SG_simulator"}, {"Authorization": "Bearer SG_simulator"}])
def test_the_key_at_a_public_file_is_a_leak(sim: Simulator, api: Any, headers: dict[str, str]) -> None:
    request_id = api.job()
    sim.advance(60)
    url = api.result(request_id)["output"]
    assert sim.leaks == []

    assert api.download(url, headers=headers).status_code == 400
    assert [leak.path for leak in sim.leaks] == [url.removeprefix(sim.url)]


def test_v1_answers_with_the_video(sim: Simulator, api: Any) -> None:
    reply = api.v1()

    assert reply.status_code == 200
    assert reply.content[4:8] == b"ftyp"
    assert reply.headers["Content-Type"] == "video/mp4"
    assert reply.headers["x-cost"] == "1.6"
    assert reply.headers["x-remaining-credits"] == "18.4"
    assert reply.headers["x-request-id"] == sim.jobs[0].request_id
    assert float(reply.headers["x-generation-time"]) > 0
    assert api.get(f"/v2/requests/{sim.jobs[0].request_id}").status_code == 404


def test_v1_answers_in_other_ways(clips: Any) -> None:
    headers = {"x-api-key": "SG_simulator"}
    for options, content_type in (
        ({"v1_content_type": "image/jpeg"}, "image/jpeg"),
        ({"v1_reply": "json"}, "application/json; charset=utf-8"),
    ):
        with Simulator(latency=0, clip_seconds=0.25, work_dir=clips, **options) as sim:  # type: ignore[arg-type]
            reply = requests.post(f"{sim.url}/v1/{LUMA}", json={"prompt": "a"}, headers=headers, timeout=20)
            assert reply.headers["Content-Type"] == content_type
            video = reply
            if options.get("v1_reply") == "json":
                video = requests.get(reply.json()["output"], timeout=20)
            assert video.content[4:8] == b"ftyp"


def test_v1_reports_a_failure(sim: Simulator, api: Any) -> None:
    sim.fail_next("boom")
    reply = api.v1()

    assert reply.status_code == 422
    assert reply.json() == {"error": "boom"}
    assert sim.charges == 0


def test_a_retired_model(sim: Simulator, api: Any) -> None:
    sim.retire(LUMA)

    assert api.submit().status_code == 410
    assert api.call("POST", f"/v1/{LUMA}", json={"prompt": "a"}).status_code == 410
    assert api.submit("luma-ray-3-2").status_code == 200


@pytest.mark.parametrize(("refusal", "page"), [(404, False), (405, True)])
def test_a_model_only_on_v1(sim: Simulator, api: Any, refusal: int, page: bool) -> None:
    sim.v1_only(LUMA, refusal=refusal)

    reply = api.submit()
    assert reply.status_code == refusal
    assert reply.headers["Content-Type"].startswith("text/html") is page
    assert api.v1().status_code == 200


def test_unknown_paths(api: Any) -> None:
    reply = api.get("/v3/anything")
    assert reply.status_code == 404
    assert reply.json() == {"error": "Not Found"}


def test_the_request_log(sim: Simulator, api: Any) -> None:
    api.get("/inference-request/request-history?page=1", headers={"User-Agent": "me"})

    entry = sim.requests[-1]
    assert (entry.call, entry.method, entry.status, entry.has_key) == ("history", "GET", 200, True)
    assert entry.path == "/inference-request/request-history"
    assert entry.query == {"page": "1"}
    assert entry.headers["User-Agent"] == "me"
    assert sim.calls == {"history": 1}
