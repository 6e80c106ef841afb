"""An S3 server on loopback, used through Airflow's Amazon provider with a connection id."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import s3fs  # type: ignore[import-untyped]
from airflow.sdk.io import store as airflow_store
from botocore.config import Config  # type: ignore[import-untyped]

from airflow_provider_luma.simulator import Simulator
from tests.faults.conftest import connect
from tests.storage.server import Gate, Store
from tests.support import API_KEY

ACCESS_KEY, SECRET = "AKIA0123456789ABCDEF", "S3cretS3cretS3cretS3cretS3cretS3cretS3cr"


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    running = Store()
    yield running
    running.kill()


@pytest.fixture(scope="session")
def session_gate(store: Store) -> Iterator[Gate]:
    with Gate(store) as running:
        yield running


@pytest.fixture
def gate(session_gate: Gate) -> Iterator[Gate]:
    """The gate to the store, with no fault set."""
    session_gate.reset()
    yield session_gate
    session_gate.reset()


class Bucket:
    """A test's bucket, accessed with a client other than the worker's."""

    name = "media"

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self._store.url,
            region_name="eu-central-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"max_attempts": 0}),
        )

    def create(self) -> None:
        self.client.create_bucket(
            Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def put_in_parts(self, key: str, content: bytes) -> None:
        """Put an object with the ETag of a multipart upload."""
        place = {"Bucket": self.name, "Key": key}
        upload = {**place, "UploadId": self.client.create_multipart_upload(**place)["UploadId"]}
        etag = self.client.upload_part(**upload, PartNumber=1, Body=content)["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        self.client.complete_multipart_upload(**upload, MultipartUpload=parts)

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def names(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    def uploads(self) -> list[str]:
        """The multipart uploads that were neither completed nor aborted."""
        return [
            entry["Key"] for entry in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        ]

    def record(self, key: str) -> dict[str, Any]:
        return dict(json.loads(self.get(f"{key}.job.json")))

    def deny(self, *actions: str) -> None:
        """Deny these actions to everybody."""
        resource = [f"arn:aws:s3:::{self.name}", f"arn:aws:s3:::{self.name}/*"]
        statement = {"Effect": "Deny", "Principal": "*", "Action": list(actions), "Resource": resource}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self.client.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))


@pytest.fixture
def bucket(store: Store, gate: Gate, monkeypatch: pytest.MonkeyPatch, frame: Path) -> Iterator[Bucket]:
    """An empty bucket with a frame in it, and the connection ``store`` to it."""
    extra = {
        "region_name": "eu-central-1",
        "endpoint_url": gate.url,
        "config_kwargs": {"retries": {"max_attempts": 0}, "signature_version": "s3v4"},
    }
    connection = {"conn_type": "aws", "login": ACCESS_KEY, "password": SECRET, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(connection))
    made = Bucket(store)
    made.create()
    made.put("frames/f.jpg", frame.read_bytes())
    yield made
    for key in made.names():
        made.delete(key)
    for entry in made.client.list_multipart_uploads(Bucket=made.name).get("Uploads", []):
        made.client.abort_multipart_upload(Bucket=made.name, Key=entry["Key"], UploadId=entry["UploadId"])
    with suppress(made.client.exceptions.ClientError):
        made.client.delete_bucket_policy(Bucket=made.name)
    made.client.delete_bucket(Bucket=made.name)


@pytest.fixture(autouse=True)
def fresh_stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drop Airflow's cached file systems, as in a new process; and limit S3 to two tries."""
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    airflow_store._STORE_CACHE.clear()
    yield
    airflow_store._STORE_CACHE.clear()


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all simulators, so that each clip is rendered once."""
    return tmp_path_factory.mktemp("vendor")


@pytest.fixture
def simulator(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    with Simulator(latency=0.02, clip_seconds=0.2, credits="20", api_key=API_KEY, work_dir=work) as running:
        connect(monkeypatch, running)
        yield running


@pytest.fixture
def large_videos(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A vendor with videos so large that they are uploaded in parts."""
    with Simulator(
        latency=0.02,
        clip_seconds=0.2,
        credits="20",
        api_key=API_KEY,
        work_dir=work,
        video_size=16 * 1024 * 1024,
    ) as running:
        connect(monkeypatch, running)
        yield running


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Everything logged and printed so far, at DEBUG level."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text + "".join(capfd.readouterr())
