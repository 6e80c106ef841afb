"""``python -m airflow_provider_luma``: see ``--help``."""

from __future__ import annotations

import sys

from airflow_provider_luma.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
