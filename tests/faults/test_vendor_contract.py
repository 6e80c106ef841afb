"""One contract for the fake vendor of the state machine and for LumaRayHook with the simulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import pytest

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayModelUnavailable,
    LumaRayRateLimited,
    LumaRayRefused,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.luma_ray import GeneratedVideo, LumaRayHook
from airflow_provider_luma.segmind.history import body_digest
from airflow_provider_luma.segmind.replies import JobResult, JobStatus, Reply, VendorStatus, parse_result
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.faults.conftest import connect
from tests.faults.vendor import (
    BROKEN,
    BROKEN_AFTER,
    BUSY,
    CUT_OFF,
    FILE_LIFETIME,
    GATEWAY,
    NAMES_NO_VIDEO,
    NOT_FOUND,
    RECORD_LIFETIME,
    REFUSED,
    Attempt,
    FakeHook,
    World,
)
from tests.support import API_KEY

MODEL = "luma-ray-img-2-video"
PENDING = (VendorStatus.QUEUED, VendorStatus.PROCESSING)
#: The simulator's names of the calls, where they differ.
CALLS = {"generate": "v1", "find": "history", "find one": "history_one"}
#: Seconds that a job takes: more than a test, but for v1, which is waited for.
LATENCY, SHORT = 100.0, 0.05


class Vendor(Protocol):
    """A vendor with a balance of 20 USD, and the hook under test.

    :param latency: seconds that a job takes
    :param lag: seconds until a job is in the history
    :param v1_reply: see World
    """

    hook: Any

    def __init__(self, *, latency: float = LATENCY, lag: float = 0.0, v1_reply: str = "video") -> None: ...
    @property
    def ids(self) -> list[str]: ...
    def now(self) -> float: ...
    def advance(self, seconds: float) -> None: ...
    def doom_next(self) -> None: ...
    def trouble(self, call: str, trouble: str) -> None: ...


class Fake:
    """The vendor without HTTP."""

    def __init__(self, *, latency: float = LATENCY, lag: float = 0.0, v1_reply: str = "video") -> None:
        self._world = World(latency=latency, lag=lag, v1_reply=v1_reply, credits=Decimal(20))
        self.hook = FakeHook(self._world)

    @property
    def ids(self) -> list[str]:
        return list(self._world.jobs)

    def now(self) -> float:
        return self._world.now

    def advance(self, seconds: float) -> None:
        self._world.now += seconds

    def doom_next(self) -> None:
        self._world.doom_next = True

    def trouble(self, call: str, trouble: str) -> None:
        self._world.attempt = Attempt(outage=(call, trouble))


class Real:
    """LumaRayHook, and the simulator."""

    def __init__(self, simulator: Simulator, v1_reply: str) -> None:
        self._simulator = simulator
        self.hook = LumaRayHook()
        if v1_reply == "nameless":
            simulator.fault("v1", "wrong_content_type", request_id="", times=99)

    @property
    def ids(self) -> list[str]:
        return [job.request_id for job in self._simulator.jobs]

    def now(self) -> float:
        return self._simulator.now()

    def advance(self, seconds: float) -> None:
        self._simulator.advance(seconds)
        self.hook.get_credits()  # the hook knows the vendor's time by the last reply

    def doom_next(self) -> None:
        self._simulator.fail_next()

    def trouble(self, call: str, trouble: str) -> None:
        is_paid = call in ("submit", "generate")
        faults: dict[str, dict[str, Any]] = {
            REFUSED: {"kind": "status", "status": 401},
            BUSY: {"kind": "status", "status": 429, "seconds": 0.01},
            NOT_FOUND: {"kind": "status", "status": 404},
            BROKEN: {"kind": "reset", "accepted": False},
            BROKEN_AFTER: {"kind": "reset" if is_paid else "broken_json", "accepted": True},
            GATEWAY: {"kind": "gateway", "accepted": True},
            CUT_OFF: {"kind": "truncated", "accepted": True},
        }
        self._simulator.fault(CALLS.get(call, call), times=99, **faults[trouble])


MakeVendor = Callable[..., Vendor]


@pytest.fixture(params=["the fake", "LumaRayHook"])
def make(
    request: pytest.FixtureRequest, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeVendor]:
    """Makes the vendor under test."""
    if request.param == "the fake":
        yield Fake
        return
    with ExitStack() as running:

        def start(*, latency: float = LATENCY, lag: float = 0.0, v1_reply: str = "video") -> Real:
            simulator = running.enter_context(
                Simulator(
                    latency=latency,
                    history_lag=lag,
                    v1_reply="json" if v1_reply == "json" else "video",
                    clip_seconds=0.2,
                    credits="20",
                    api_key=API_KEY,
                    work_dir=clips,
                )
            )
            connect(monkeypatch, simulator)
            return Real(simulator, v1_reply)

        yield start


@pytest.fixture
def vendor(make: MakeVendor) -> Vendor:
    return make()


@pytest.fixture
def request_of(frame: Path) -> Callable[..., GenerationRequest]:
    """Makes requests whose frame the vendor can fetch."""

    def make_request(vendor: Vendor, prompt: str = "a slow push in", model: str = MODEL) -> GenerationRequest:
        return GenerationRequest(model, prompt, vendor.hook.upload_image(str(frame)), resolution="540p")

    return make_request


RequestOf = Callable[..., GenerationRequest]


def test_a_job_from_its_purchase_to_its_file(vendor: Vendor, request_of: RequestOf, tmp_path: Path) -> None:
    hook, request = vendor.hook, request_of(vendor)
    hook.reserve()
    request_id = hook.submit(request)
    assert vendor.ids == [request_id]
    status = hook.get_status(request_id)
    assert status.state in PENDING
    assert (status.cost, status.remaining_credits, status.output_url, status.error) == (None,) * 4
    with pytest.raises(LumaRayUnavailable) as early:
        hook.get_result(request_id)
    assert early.value.status_code == 200
    row = hook.find_job(request_id)
    assert (row.state, row.output_url, row.cost) == (VendorStatus.PROCESSING, None, 0)
    assert hook.get_credits().total == 20

    vendor.advance(LATENCY)
    assert hook.get_status(request_id) == JobStatus(
        VendorStatus.COMPLETED, cost=Decimal("1.6"), remaining_credits=Decimal("18.4")
    )
    result = hook.get_result(request_id)
    assert (result.state, result.cost, result.remaining_credits) == (
        VendorStatus.COMPLETED,
        Decimal("1.6"),
        Decimal("18.4"),
    )
    assert hook.get_credits().total == Decimal("18.4")

    row = hook.find_job(request_id)
    assert (row.request_id, row.model, row.state) == (request_id, MODEL, VendorStatus.COMPLETED)
    assert (row.cost, row.output_url, row.error) == (Decimal("1.6"), result.url, None)
    assert row.body_sha256 == body_digest(request.body())
    assert abs(row.created.timestamp() + LATENCY - vendor.now()) < 10
    assert hook.find_jobs(MODEL, row.created) == [row]

    assert hook.reaches(result.url)
    video = hook.download_video(result.url, tmp_path / "part")
    content = video.path.read_bytes()
    assert (video.path, video.size, content[4:8]) == (tmp_path / "part", len(content), b"ftyp")
    assert hook.download_video(result.url, tmp_path / "again").sha256 == video.sha256


def test_a_job_that_failed(vendor: Vendor, request_of: RequestOf) -> None:
    hook = vendor.hook
    vendor.doom_next()
    request_id = hook.submit(request_of(vendor))
    assert hook.get_status(request_id).state in PENDING
    vendor.advance(LATENCY)
    for status in (hook.get_status(request_id), hook.find_job(request_id).status()):
        assert (status.state, status.cost, status.output_url) == (VendorStatus.FAILED, 0, None)
        assert status.error
    result = hook.get_result(request_id)
    assert (result.state, result.url, result.cost) == (VendorStatus.FAILED, None, 0)
    (row,) = hook.find_jobs(MODEL, _at(vendor))
    assert row.state is VendorStatus.FAILED
    assert hook.get_credits().total == 20


@pytest.mark.parametrize("v1_reply", ["video", "json", "nameless"])
def test_v1(make: MakeVendor, request_of: RequestOf, tmp_path: Path, v1_reply: str) -> None:
    vendor = make(latency=SHORT, v1_reply=v1_reply)
    request = request_of(vendor)
    generated: GeneratedVideo = vendor.hook.generate(request, tmp_path / "part")
    (request_id,) = vendor.ids
    assert generated.request_id == (None if v1_reply == "nameless" else request_id)
    row = vendor.hook.find_job(request_id)
    assert (row.state, row.body_sha256) == (VendorStatus.COMPLETED, body_digest(request.body()))
    if v1_reply == "json":
        assert (generated.video, generated.url) == (None, row.output_url)
        assert not (tmp_path / "part").exists()
    else:
        assert generated.url is None
        assert generated.video
        content = (tmp_path / "part").read_bytes()
        assert (generated.video.size, content[4:8]) == (len(content), b"ftyp")
    assert (generated.cost, generated.remaining_credits) == (Decimal("1.6"), Decimal("18.4"))
    # Status and result are v2's.
    assert vendor.hook.get_status(request_id).state is VendorStatus.NOT_FOUND
    assert vendor.hook.get_result(request_id).state is VendorStatus.NOT_FOUND


def test_a_failed_v1_job_is_a_refusal_with_its_id(
    make: MakeVendor, request_of: RequestOf, tmp_path: Path
) -> None:
    vendor = make(latency=SHORT)
    vendor.doom_next()
    with pytest.raises(LumaRayRefused) as refused:
        vendor.hook.generate(request_of(vendor), tmp_path / "part")
    assert type(refused.value) is LumaRayRefused
    assert (refused.value.status_code, [refused.value.request_id]) == (422, vendor.ids)
    assert vendor.hook.find_job(refused.value.request_id).state is VendorStatus.FAILED
    assert vendor.hook.get_credits().total == 20


def test_an_unknown_id_is_an_answer(vendor: Vendor, tmp_path: Path) -> None:
    request_id = "0f9b1c2d-0000-4000-8000-000000000000"
    assert vendor.hook.get_status(request_id) == JobStatus(VendorStatus.NOT_FOUND)
    result = vendor.hook.get_result(request_id)
    assert (result.state, result.url) == (VendorStatus.NOT_FOUND, None)
    assert vendor.hook.find_job(request_id) is None
    assert vendor.hook.find_jobs(MODEL, _at(vendor)) == []


def test_the_history_has_one_model_newest_first(vendor: Vendor, request_of: RequestOf) -> None:
    hook = vendor.hook
    ids = []
    for prompt in "abc":
        ids.append(hook.submit(request_of(vendor, prompt)))
        vendor.advance(10)
    hook.submit(request_of(vendor, model="luma-ray-3-2"))
    assert [row.request_id for row in hook.find_jobs(MODEL, _at(vendor))] == ids[::-1]


def test_a_job_is_in_the_history_a_while_after_its_purchase(make: MakeVendor, request_of: RequestOf) -> None:
    vendor = make(lag=300)
    request_id = vendor.hook.submit(request_of(vendor))
    assert vendor.hook.find_jobs(MODEL, _at(vendor)) == []
    assert vendor.hook.find_job(request_id) is None
    vendor.advance(301)
    assert [row.request_id for row in vendor.hook.find_jobs(MODEL, _at(vendor))] == [request_id]
    assert vendor.hook.find_job(request_id)


@pytest.mark.parametrize("days", [0.9, 1.9, 2.1])
def test_the_history_is_queried_by_whole_days_from_the_day_before(
    vendor: Vendor, request_of: RequestOf, days: float
) -> None:
    request_id = vendor.hook.submit(request_of(vendor))
    created = vendor.hook.find_job(request_id).created
    vendor.advance(5 * 86400)
    shown = [row.request_id for row in vendor.hook.find_jobs(MODEL, created + timedelta(days=days))]
    first_day = (created + timedelta(days=days - 1)).date()
    assert shown == ([request_id] if created.date() >= first_day else [])


def test_what_the_vendor_forgets(vendor: Vendor, request_of: RequestOf, tmp_path: Path) -> None:
    hook = vendor.hook
    request_id = hook.submit(request_of(vendor))
    created = hook.find_job(request_id).created
    vendor.advance(RECORD_LIFETIME - 10)
    assert hook.get_status(request_id).state is VendorStatus.COMPLETED
    url = hook.get_result(request_id).url
    vendor.advance(20)
    assert hook.get_status(request_id).state is VendorStatus.NOT_FOUND
    assert hook.get_result(request_id).state is VendorStatus.NOT_FOUND
    assert hook.find_job(request_id).output_url == url

    vendor.advance(FILE_LIFETIME - RECORD_LIFETIME)
    hook.download_video(url, tmp_path / "part")
    vendor.advance(LATENCY)
    with pytest.raises(LumaRayDeliveryFailed) as gone:
        hook.download_video(url, tmp_path / "part")
    assert gone.value.status_code == 404

    vendor.advance(20 * 86400)
    assert hook.find_jobs(MODEL, created)
    vendor.advance(6 * 86400)
    assert hook.find_jobs(MODEL, created) == []
    assert hook.find_job(request_id)


def test_the_vendors_clock(vendor: Vendor) -> None:
    for seconds in (0, 86400):
        vendor.advance(seconds)
        vendor.hook.get_credits()
        now = vendor.hook.vendor_now()
        assert now.tzinfo is UTC
        assert abs(now.timestamp() - vendor.now()) < 5


def test_each_upload_has_its_own_url(vendor: Vendor, frame: Path) -> None:
    first, second = (vendor.hook.upload_image(str(frame)) for _ in range(2))
    assert first != second
    assert first.startswith(("http://", "https://"))


def test_what_the_balance_does_not_cover_is_refused(
    vendor: Vendor, request_of: RequestOf, tmp_path: Path
) -> None:
    hook, request = vendor.hook, request_of(vendor)
    for _ in range(12):  # 19.20 of 20 USD, set aside from the purchase on
        hook.submit(request)
    for buy, code in (
        (lambda: hook.submit(request), 402),
        (lambda: hook.generate(request, tmp_path / "part"), 406),
    ):
        with pytest.raises(LumaRayInsufficientCredits) as refused:
            buy()
        assert refused.value.status_code == code
    assert len(vendor.ids) == 12


Expected = tuple[type[LumaRayError], int | None] | object
LIMITED = (LumaRayRateLimited, 429)
# What becomes of each call in each trouble: a class of errors and its status_code, or what is returned.
USUALLY: dict[str, Expected] = {
    REFUSED: (LumaRayAuthenticationError, 401),
    BUSY: LIMITED,
    BROKEN: (LumaRayUnavailable, None),
    BROKEN_AFTER: (LumaRayUnavailable, 200),
}
SPECIALLY: dict[str, dict[str, Expected]] = {
    "credits": {NOT_FOUND: (LumaRayUnavailable, 404)},
    "upload": {NOT_FOUND: (LumaRayModelUnavailable, 404)},
    "status": {
        NOT_FOUND: JobStatus(VendorStatus.NOT_FOUND),
        BROKEN_AFTER: JobStatus(VendorStatus.UNKNOWN),
    },
    "result": {NOT_FOUND: VendorStatus.NOT_FOUND},
    "find one": {NOT_FOUND: None},
    "find": {NOT_FOUND: (LumaRayUnavailable, 404)},
    "download": {
        REFUSED: (LumaRayDeliveryFailed, 401),
        BUSY: (LumaRayDeliveryFailed, None),
        NOT_FOUND: (LumaRayDeliveryFailed, 404),
        BROKEN: (LumaRayDeliveryFailed, None),
        BROKEN_AFTER: (LumaRayDeliveryFailed, None),
    },
}
TROUBLED = {call: USUALLY | special for call, special in SPECIALLY.items()}


@pytest.mark.parametrize(
    ("call", "trouble"), [(call, trouble) for call, troubles in TROUBLED.items() for trouble in troubles]
)
def test_a_free_call_with_a_fault(
    vendor: Vendor, request_of: RequestOf, frame: Path, tmp_path: Path, call: str, trouble: str
) -> None:
    hook = vendor.hook
    request_id = hook.submit(request_of(vendor))
    vendor.advance(LATENCY)
    url = hook.get_result(request_id).url
    vendor.trouble(call, trouble)
    make_call: dict[str, Callable[[], object]] = {
        "credits": hook.get_credits,
        "upload": lambda: hook.upload_image(str(frame)),
        "status": lambda: hook.get_status(request_id),
        "result": lambda: hook.get_result(request_id),
        "find one": lambda: hook.find_job(request_id),
        "find": lambda: hook.find_jobs(MODEL, _at(vendor)),
        "download": lambda: hook.download_video(url, tmp_path / "part"),
    }
    assert _outcome(make_call[call]) == TROUBLED[call][trouble]


@pytest.mark.parametrize("call", ["submit", "generate"])
@pytest.mark.parametrize(
    ("trouble", "expected", "bought"),
    [
        (REFUSED, (LumaRayAuthenticationError, 401), 0),
        (BUSY, LIMITED, 0),
        (NOT_FOUND, (LumaRayModelUnavailable, 404), 0),
        (BROKEN, LumaRaySubmitUnknown, 0),
        (BROKEN_AFTER, LumaRaySubmitUnknown, 1),
        (GATEWAY, LumaRaySubmitUnknown, 1),
        (CUT_OFF, LumaRaySubmitUnknown, 1),
    ],
)
def test_a_paid_call_with_a_fault(
    make: MakeVendor,
    request_of: RequestOf,
    tmp_path: Path,
    call: str,
    trouble: str,
    expected: Any,
    bought: int,
) -> None:
    vendor = make(latency=SHORT)
    request = request_of(vendor)
    vendor.trouble(call, trouble)
    pay = {
        "submit": lambda: vendor.hook.submit(request),
        "generate": lambda: vendor.hook.generate(request, tmp_path / "part"),
    }
    with pytest.raises(LumaRayError) as raised:
        pay[call]()
    error = raised.value
    assert len(vendor.ids) == bought
    if isinstance(error, LumaRaySubmitUnknown):
        assert expected is LumaRaySubmitUnknown
        assert error.request_id is None
        hinted = {GATEWAY: "other", CUT_OFF: "own" if call == "generate" else "none"}.get(trouble, "none")
        assert ("none" if error.hint is None else "own" if error.hint in vendor.ids else "other") == hinted
    else:
        assert (type(error), error.status_code) == expected
        assert error.request_id is None


def test_a_result_without_a_video() -> None:
    """The simulator cannot send these: the fake answers with what such a reply would be parsed as."""
    body = json.dumps(NAMES_NO_VIDEO.body).encode()
    assert parse_result(Reply(200, {}, body), "job-0001") == NAMES_NO_VIDEO


def _at(vendor: Vendor) -> datetime:
    return datetime.fromtimestamp(vendor.now(), UTC)


def _outcome(call: Callable[[], object]) -> object:
    try:
        answer = call()
    except LumaRayError as error:
        return type(error), error.status_code
    return answer.state if isinstance(answer, JobResult) else answer
