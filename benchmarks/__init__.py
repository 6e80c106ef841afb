"""Benchmarks the provider against its peers: `python -m benchmarks [NAME ...] [--json PATH]`."""
