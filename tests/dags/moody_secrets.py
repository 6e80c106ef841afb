"""A secrets backend that fails some look-ups of the default connection."""

from __future__ import annotations

import json
import os
from pathlib import Path

from airflow.secrets import BaseSecretsBackend


class MoodySecrets(BaseSecretsBackend):
    """Fails the look-ups whose numbers ``MOODY_DOWN`` lists."""

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        if conn_id != "luma_ray_default":
            return None
        count = Path(os.environ["MOODY_COUNT"])
        with count.open("a") as file:
            file.write(".")
        if str(count.stat().st_size) in os.environ["MOODY_DOWN"].split(","):
            raise OSError("the vault is sealed")
        return json.dumps(
            {
                "conn_type": "luma_ray",
                "host": os.environ["MOODY_HOST"],
                "password": os.environ["MOODY_PASSWORD"],
            }
        )
