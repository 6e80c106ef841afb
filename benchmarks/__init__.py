"""What the provider costs, beside its peers: `python -m benchmarks [NAME ...] [--json PATH]`."""
