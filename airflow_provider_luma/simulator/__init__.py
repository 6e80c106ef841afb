"""A local Segmind: the vendor's contract, real videos, and bad days on demand. Needs the `simulator` extra."""

from airflow_provider_luma.simulator.server import LoggedRequest
from airflow_provider_luma.simulator.simulator import JobSnapshot, Simulator

__all__ = ["JobSnapshot", "LoggedRequest", "Simulator"]
