"""The simulator as a program: `python -m airflow_provider_luma.simulator`."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import signal
import threading
from dataclasses import asdict

from airflow_provider_luma.simulator.faults import CALLS, KINDS, Fault
from airflow_provider_luma.simulator.simulator import Simulator


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma.simulator",
        description="A local Segmind: the same contract, real videos, no bill.",
        epilog=f"Calls: {', '.join(CALLS)}. Kinds: {', '.join(KINDS)}, or a status such as 503.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8900, help="0 chooses a free one (%(default)s)")
    parser.add_argument("--latency", type=float, default=2, help="seconds per job (%(default)s)")
    parser.add_argument("--credits", default="20", help="balance in USD (%(default)s)")
    parser.add_argument("--requests-per-minute", type=int, default=0, help="0 for no limit (%(default)s)")
    parser.add_argument("--api-key", default="SG_simulator", help="the only key accepted (%(default)s)")
    parser.add_argument(
        "--history-lag", type=float, default=0, help="seconds before a job shows (%(default)s)"
    )
    parser.add_argument("--fault", action="append", default=[], metavar="CALL:KIND[:TIMES]", type=_fault)
    options = vars(parser.parse_args())
    faults = options.pop("fault")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Simulator(**options) as simulator:
        for fault in faults:
            simulator.fault(**asdict(fault))
        print(f"Segmind simulator on {simulator.url}", flush=True)
        connection = {"conn_type": "luma_ray", "password": simulator.api_key, "host": simulator.url}
        print(f"export AIRFLOW_CONN_LUMA_RAY_DEFAULT={shlex.quote(json.dumps(connection))}", flush=True)
        stop.wait()


def _fault(text: str) -> Fault:
    try:
        return Fault.from_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    main()
