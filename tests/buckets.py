"""An S3 server on loopback, and the Airflow connection to it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.storage.server import Store

SECRET_KEY = "secretinthetests"


@contextmanager
def s3_server() -> Iterator[tuple[str, Any]]:
    """Run an empty server; yield the connection as JSON, and a client."""
    store = Store()
    url, key_id, region = store.url, "AKIAINTHETESTS", "us-east-1"
    connection = {
        "conn_type": "aws",
        "login": key_id,
        "password": SECRET_KEY,
        "extra": {"endpoint_url": url, "region_name": region},
    }
    client = importlib.import_module("boto3").client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=key_id,
        aws_secret_access_key=SECRET_KEY,
        region_name=region,
    )
    try:
        yield json.dumps(connection), client
    finally:
        store.kill()
