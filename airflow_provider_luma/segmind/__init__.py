"""Segmind's HTTP contract as pure functions and frozen dataclasses: no I/O, no Airflow."""
