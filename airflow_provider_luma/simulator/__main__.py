"""The simulator as a program: `python -m airflow_provider_luma.simulator`."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import signal
import sys
import textwrap
import threading
from dataclasses import asdict, fields

from airflow_provider_luma.simulator.faults import Fault
from airflow_provider_luma.simulator.habits import HISTORY_SHAPES, ID_STYLES
from airflow_provider_luma.simulator.kinds import CALLS, KINDS

_EXAMPLES = """\
examples:
  # A job is bought and the reply is lost; its next two polls get a 503.
  python -m airflow_provider_luma.simulator --fault submit:reset --fault status:503:2
  # A job is accepted and ends FAILED; the next is accepted too, but a gateway answers 504 in the vendor's place.
  python -m airflow_provider_luma.simulator --fault submit:failed \\
    --fault '{"call": "submit", "kind": "gateway", "status": 504}'
  # Add a fault to a running simulator, and 50 USD to its balance.
  curl -d '{"call": "status", "kind": 503, "times": 2}' http://127.0.0.1:8900/simulator/faults
  curl -d '{"credits": "50"}' http://127.0.0.1:8900/simulator/credits

While it runs: POST /simulator/faults adds a fault, DELETE /simulator/faults drops the remaining ones,
POST /simulator/credits tops up, GET /simulator/state shows jobs, charges, balance and calls. None needs a key."""


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    try:
        from airflow_provider_luma.simulator import Simulator
    except ImportError as missing:
        sys.exit(str(missing))

    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma.simulator",
        description="A local Segmind: the same contract, real videos, no bill.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8900, help="0 selects a free one (%(default)s)")
    parser.add_argument("--latency", type=float, default=2, help="seconds per job (%(default)s)")
    parser.add_argument("--credits", default="20", help="balance in USD (%(default)s)")
    parser.add_argument("--requests-per-minute", type=int, default=0, help="0 for no limit (%(default)s)")
    parser.add_argument("--api-key", default="SG_simulator", help="the only accepted key (%(default)s)")
    parser.add_argument(
        "--history-lag", type=float, default=0, help="seconds until a job is in the history (%(default)s)"
    )
    parser.add_argument(
        "--history-shape",
        choices=HISTORY_SHAPES,
        default="data",
        help="the envelope of the history's rows (%(default)s)",
    )
    parser.add_argument(
        "--id-style",
        choices=ID_STYLES,
        default="dashes",
        help="plain: status and result write a job's id without dashes, and accept both (%(default)s)",
    )
    parser.add_argument(
        "--clock-offset",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how far its clock is ahead of this machine's (%(default)s)",
    )
    parser.add_argument(
        "--no-download-validators",
        dest="download_validators",
        action="store_false",
        help="serve videos without ETag and Last-Modified",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="CALL:KIND[:TIMES]|JSON",
        type=_fault,
        help="what goes wrong next, see below; repeat it for what goes wrong after that",
    )
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


def _epilog() -> str:
    """Return the table of faults and the examples."""
    words = ", ".join(field.name for field in fields(Fault))
    sections = [
        textwrap.fill(
            "A fault is CALL:KIND[:TIMES], where KIND may be a status such as 503, or a JSON object with any of "
            f"{words}; POST /simulator/faults takes the same object. Angle brackets have the fields that a kind "
            "reads, parentheses their defaults. `accepted` says whether the call still has its effect, by default "
            "yes for kinds with a *; `request_id` is the x-request-id of the reply.",
            110,
        ),
        textwrap.fill(f"calls: {', '.join(CALLS)}", 110, subsequent_indent="  "),
        "kinds:",
    ]
    for name, kind in KINDS.items():
        title = f"{name}*" if kind.accepted else name
        styles = f"; styles: {', '.join(kind.styles)}" if kind.styles else ""
        calls = f"; only {', '.join(kind.calls)}" if kind.calls != CALLS else ""
        line = f"  {title:<21}{kind.does}{styles}{calls}"
        sections.append(textwrap.fill(line, 110, subsequent_indent=" " * 23))
    return "\n".join([sections[0], "", sections[1], "", *sections[2:], "", _EXAMPLES])


def _fault(text: str) -> Fault:
    try:
        return Fault.from_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    main()
