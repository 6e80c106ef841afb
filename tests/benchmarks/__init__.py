"""What the provider costs, beside its peers: `python -m tests.benchmarks [NAME ...] [--json PATH]`."""
