"""A local Segmind: the vendor's contract, real videos, and faults on demand. Needs the `simulator` extra.

In a test:

    with Simulator(latency=60, credits="20") as simulator:
        simulator.fault("submit", "reset")              # the job is bought, the reply is lost
        simulator.fault("status", 503, times=2)         # a number is a status to answer
        simulator.fault("submit", "failed")             # the submit after that is accepted and ends FAILED
        simulator.delay_history("next", 90)             # the next job appears late in the history
        simulator.top_up("50")
        ...                                             # a client that calls simulator.url
        simulator.advance(60)                           # the simulator's own clock
        assert simulator.charges == 1

As a program: `python -m airflow_provider_luma.simulator`; its `--help` lists all calls and kinds. Its routes take the
same words as `--fault`, and need no key:

    POST   /simulator/faults    {"call": "submit", "kind": "reset"}, {"call": "status", "kind": 503, "times": 2} or
                                {"call": "submit", "kind": "gateway", "status": 504}; returns the faults to come
    DELETE /simulator/faults    drops them
    POST   /simulator/credits   {"credits": "50"} tops up the balance, and returns it
    GET    /simulator/state     shows jobs, charges, balance, calls, faults to come
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_luma.simulator.server import LoggedRequest
    from airflow_provider_luma.simulator.simulator import JobSnapshot, Simulator

__all__ = ["JobSnapshot", "LoggedRequest", "Simulator"]


def __getattr__(name: str) -> object:
    """Import the simulator only when it is asked for, so that the program can say what is missing.

    :raises ImportError: what the extra installs is missing
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from airflow_provider_luma.simulator import server, simulator
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The simulator needs {error.name!r}: install 'airflow-provider-luma[simulator]'."
        ) from None
    return getattr(server if name == "LoggedRequest" else simulator, name)
