"""What a clip's asset events and lineage contain, and what they must not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState
from airflow_provider_luma.outlets import announce, asset_uri, lineage
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, make_operator, task_context

pytestmark = pytest.mark.usefixtures("connection")


def with_outlets(**identity: Any) -> Any:
    return task_context(**identity) | {"outlet_events": OutletEventAccessors()}


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("/clips/a b.mp4", "file:///clips/a%20b.mp4"),
        ("s3://aws_default@clips/a/b.mp4", "s3://clips/a/b.mp4"),
        ("s3://clips/a@b.mp4", "s3://clips/a@b.mp4"),
        ("gs://clips/ä#1.mp4", "gs://clips/%C3%A4%231.mp4"),
        ("abfs://azure@container/run=1/a+b:c.mp4", "abfs://container/run=1/a+b:c.mp4"),
    ],
)
def test_an_asset_is_named_without_its_connection(path: str, uri: str) -> None:
    assert (asset_uri(path), Asset(asset_uri(path)).uri) == (uri, uri)


def test_only_declared_outlets_get_events() -> None:
    outputs = {
        "video_path": "s3://aws_default@clips/a.mp4",
        "request_id": "r1",
        "credits_used": 1.6,
        "remaining_credits": None,
        "model": "m",
    }
    context = with_outlets()
    announce(context, [], outputs)
    assert len(context["outlet_events"]) == 0

    asset, alias = Asset("clips"), AssetAlias("videos")
    announce(context, [asset, alias, "no asset"], outputs)
    told = context["outlet_events"]
    extra = {
        "video_path": "s3://clips/a.mp4",
        "request_id": "r1",
        "credits_used": 1.6,
        "remaining_credits": None,
        "reused": False,
    }
    assert set(told) == {asset, alias}
    assert told[asset].extra == extra
    (event,) = told[alias].asset_alias_events
    assert (event.dest_asset_key.uri, event.extra) == ("s3://clips/a.mp4", extra)


@pytest.mark.parametrize("map_index", [0, 1])
def test_each_mapped_task_announces_its_own_clip(
    simulator: Simulator, frame: Path, tmp_path: Path, map_index: int
) -> None:
    alias, context = AssetAlias("videos"), with_outlets(map_index=map_index)
    outputs = make_operator(frame, f"{tmp_path}/out/", outlets=[alias]).execute(context)
    (event,) = context["outlet_events"][alias].asset_alias_events
    assert event.dest_asset_key.uri == Path(outputs["video_path"]).as_uri()
    assert event.dest_asset_key.uri.endswith(f"generate-{map_index}.mp4")
    assert json.loads(json.dumps(event.extra))["request_id"] == simulator.jobs[0].request_id


@pytest.mark.parametrize("how", ["returned", "reused"])
def test_an_existing_clip_is_marked_as_reused(
    simulator: Simulator, frame: Path, tmp_path: Path, how: str
) -> None:
    clip, asset, alias = tmp_path / "clip.mp4", Asset("clips"), AssetAlias("videos")
    make_operator(frame, clip).execute(task_context())
    context = with_outlets(run_id="run_1" if how == "returned" else "monday")
    make_operator(frame, clip, outlets=[asset, alias], if_exists="reuse").execute(context)
    assert context["outlet_events"][asset].extra["reused"] is True
    assert context["outlet_events"][alias].asset_alias_events == []


def test_lineage_has_neither_signature_nor_query_nor_the_vendors_url(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    frame_url = LumaRayHook().upload_image(frame)
    operator = make_operator(f"{frame_url}?X-Amz-Signature=5ec2e7&key=open", tmp_path / "clip.mp4")
    assert operator.get_openlineage_facets_on_complete(None) is None
    operator.execute(task_context())

    facets: Any = operator.get_openlineage_facets_on_complete(None)
    told = [(data.namespace, data.name) for data in (*facets.inputs, *facets.outputs)]
    url = urlsplit(frame_url)
    assert told == [(f"http://{url.netloc}", url.path), ("file", f"{tmp_path}/clip.mp4")]
    assert not any(secret in str(facets) for secret in ("5ec2e7", "key=open", "/outputs/", API_KEY))


def test_lineage_of_a_bucket_names_the_bucket_and_the_key() -> None:
    record = JobRecord(
        state=RecordState.DELIVERED,
        identity=Identity(dag_id="d", run_id="r", task_id="t"),
        fingerprint="f",
        luma_ray_conn_id="c",
        model="m",
        parameters={},
        body_sha256="b",
        api_version="v2",
        start_frame="s3://aws_default@photos/new/a.jpg",
        output_path="gs://google@clips/new/a.mp4",
        intent_at="2026-11-22T10:00:00+00:00",
    )
    told = lineage(record)
    assert [(data.namespace, data.name) for data in told.inputs] == [("s3://photos", "new/a.jpg")]
    assert [(data.namespace, data.name) for data in told.outputs] == [("gs://clips", "new/a.mp4")]
