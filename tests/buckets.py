"""An S3 server on loopback, and the Airflow connection that leads to it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import ThreadedMotoServer

SECRET_KEY = "secretinthetests"


@contextmanager
def s3_server() -> Iterator[tuple[str, Any]]:
    """Run a server; give the connection as JSON, and a client."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url, key_id, region = f"http://{host}:{port}", "AKIAINTHETESTS", "us-east-1"
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
        server.stop()
