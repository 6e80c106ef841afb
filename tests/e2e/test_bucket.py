"""New frames in a bucket become clips; old clips stay, and deleted ones come back at no charge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.cluster import FINISHED, Cluster
from tests.e2e.conftest import LONG_RUN
from tests.e2e.runs import Runs
from tests.storage.conftest import ACCESS_KEY, SECRET, Bucket
from tests.storage.server import Store

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
AMOUNT = 200 if LONG_RUN else 10
#: Frames that have had their clips for long: as many as there are new ones in a year of weeks.
OLD = 49 * AMOUNT
DELETED = 7
#: Airflow keeps the plan as an XCom.
MOST_XCOM_BYTES = 100_000


def test_a_bucket_of_frames(cluster: Cluster, vendor: Callable[..., Runs], frame: Path) -> None:
    simulator = vendor(latency=0.2).simulator
    store = Store()
    with ExitStack() as stack:
        stack.callback(store.kill)
        bucket = Bucket(store)
        bucket.create()
        for number in range(AMOUNT):
            bucket.put(f"frames/{number:03}.jpg", frame.read_bytes() + b"%d" % number)
        for number in range(OLD):
            bucket.put(f"frames/old/{number:05}.jpg", b"an old frame")
            bucket.put(f"clips/old/{number:05}.jpg.mp4", b"an old clip")
        extra = {"endpoint_url": store.url, "region_name": "eu-central-1"}
        cluster.store_connection(
            "bucket", conn_type="aws", login=ACCESS_KEY, password=SECRET, extra=json.dumps(extra)
        )
        cluster.connect("bucket_vendor", simulator.url, simulator.api_key)
        budget = AMOUNT * 1.6
        inputs = {"frames": "s3://media/frames", "videos": "s3://media/clips", "connection": "bucket_vendor"}
        cluster.trigger("bucket", "night", max_credits=budget, **inputs)
        wait_success(cluster)

        clips = {f"clips/{number:03}.jpg.mp4" for number in range(AMOUNT)}
        records = {f"{clip}.job.json" for clip in clips}
        there = {name for name in bucket.names() if not name.startswith(("frames/", "clips/old/"))}
        assert there == clips | records
        assert (
            len(json.dumps(cluster.xcoms("bucket", "night", task_id="plan")["return_value"]))
            < MOST_XCOM_BYTES
        )
        assert (simulator.charges, len(simulator.jobs)) == (AMOUNT, AMOUNT)
        costs = [Decimal(bucket.record(clip)["cost"]) for clip in clips]
        assert sum(costs) == simulator.spent == Decimal("1.6") * AMOUNT
        names = [ti["rendered_map_index"] for ti in cluster.task_instances("bucket", "night")]
        assert sorted(names) == [f"{number:03}.jpg" for number in range(AMOUNT)]

        gone = sorted(clips)[:: AMOUNT // DELETED][:DELETED]
        contents = {clip: bucket.get(clip) for clip in gone}
        for clip in gone:
            bucket.delete(clip)
        downloads = simulator.calls["download"]
        cluster.clear("bucket", "night")
        wait_success(cluster)

        assert {clip: bucket.get(clip) for clip in gone} == contents
        assert simulator.charges == len(simulator.jobs) == AMOUNT
        assert simulator.calls["download"] == downloads + len(gone)
        assert bucket.uploads() == []

        cluster.trigger("bucket", "next", max_credits=budget, **inputs)
        cluster.wait("the next night is over", lambda: "next" in cluster.run_states("bucket"))
        cluster.wait("it ends", lambda: cluster.run_states("bucket")["next"] in FINISHED, timeout=300)
        assert {ti["state"] for ti in cluster.task_instances("bucket", "next")} == {"skipped"}, (
            "nothing is mapped"
        )
        assert simulator.charges == AMOUNT


def wait_success(cluster: Cluster) -> None:
    def succeeded() -> bool:
        states = Counter(ti["state"] for ti in cluster.task_instances("bucket", "night"))
        assert not states["failed"], states
        return states == {"success": AMOUNT} and cluster.run_states("bucket") == {"night": "success"}

    cluster.wait("the night is over", succeeded, timeout=1500, every=2)
