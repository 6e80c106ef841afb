"""The simulator as a program, and as an object that is started and stopped."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from airflow_provider_luma.simulator import Simulator
from tests.simulator.conftest import send_v1


@contextmanager
def program(*options: str) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, Any]]]:
    """Start the program; yield its process, its URL and the connection that it prints."""
    command = [sys.executable, "-m", "airflow_provider_luma.simulator", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().split()[-1]
            word, assignment = shlex.split(process.stdout.readline())
            name, _, connection = assignment.partition("=")
            assert (word, name) == ("export", "AIRFLOW_CONN_LUMA_RAY_DEFAULT")
            yield process, url, json.loads(connection)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_serves_and_stops_on_a_signal(number: signal.Signals) -> None:
    options = "--credits 5 --api-key SG_other --latency 0 --fault credits:503:2 --fault submit:reset".split()
    with program(*options) as (process, url, connection):
        assert connection == {"conn_type": "luma_ray", "password": "SG_other", "host": url}
        with requests.Session() as session:
            session.headers["x-api-key"] = "SG_other"
            answers = [session.get(f"{url}/v1/get-user-credits", timeout=20) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [503, 503, 200]
            assert answers[2].json()["credits"] == 5
            with pytest.raises(requests.ConnectionError):
                session.post(f"{url}/v2/luma-ray-3-2", json={"prompt": "a"}, timeout=20)
        assert requests.get(f"{url}/simulator/state", timeout=20).json()["calls"]["submit"] == 1
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in out + err
    assert "SG_other" not in err


@pytest.mark.parametrize("missing", ["aiohttp", "av", "PIL"])
def test_without_its_extra_the_simulator_says_in_one_sentence_what_to_install(missing: str) -> None:
    code = f"""
import runpy, sys
sys.modules[{missing!r}] = None
try:
    from airflow_provider_luma.simulator import Simulator
except ImportError as error:
    print(error)
runpy.run_module("airflow_provider_luma.simulator", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    sentence = f"The simulator needs {missing!r}: install 'airflow-provider-luma[simulator]'.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, sentence, sentence)


def test_the_program_refuses_a_wrong_fault() -> None:
    command = [sys.executable, "-m", "airflow_provider_luma.simulator", "--fault", "credits:nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "kind must be one of" in done.stderr


def test_what_was_recorded_can_be_read_after_the_end() -> None:
    with Simulator(latency=0, clip_seconds=0.1) as sim:
        requests.get(f"{sim.url}/v1/get-user-credits", timeout=20)
    assert sim.balance == 20
    assert sim.requests[0].status == 401
    assert "luma-simulator" not in {thread.name for thread in threading.enumerate()}


def test_an_occupied_port_is_reported_at_once() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(OSError, match="address already in use"):
        Simulator(port=taken.getsockname()[1]).start()


def test_stopping_does_not_wait_for_clients_or_renderings() -> None:
    sim = Simulator(latency=3600).start()
    with send_v1(sim, resolution="1080p", aspect_ratio="21:9") as client:
        sim.stop()
        assert client.recv(1) == b""
    assert sim.charges == 0
