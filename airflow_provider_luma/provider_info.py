"""The metadata that Airflow reads when it discovers the provider; imports only the standard library."""

from __future__ import annotations

from typing import Any

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "port", "schema"],
    "relabeling": {"password": "API key", "host": "Base URL"},
    "placeholders": {
        "password": "the API key from Segmind's console",
        "host": "empty: https://api.segmind.com; or the simulator's URL",
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the format of ``airflow/provider_info.schema.json``."""
    integration = "Luma Ray (Segmind)"

    def modules(kind: str) -> list[dict[str, Any]]:
        return [
            {"integration-name": integration, "python-modules": [f"airflow_provider_luma.{kind}.luma_ray"]}
        ]

    return {
        "package-name": "airflow-provider-luma",
        "name": integration,
        "description": "Luma Ray image-to-video on Segmind: no clip is paid for twice, and none is lost.",
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://www.segmind.com/models/luma-ray-img-2-video",
                "tags": ["service"],
            }
        ],
        "hooks": modules("hooks"),
        "operators": modules("operators"),
        "sensors": modules("sensors"),
        "triggers": modules("triggers"),
        "cli": ["airflow_provider_luma.cli.definition.get_cli_commands"],
        "task-decorators": [
            {"name": "luma_ray", "class-name": "airflow_provider_luma.decorators.luma_ray.luma_ray_task"}
        ],
        "extra-links": ["airflow_provider_luma.links.luma_ray.LumaRayClipLink"],
        "plugins": [
            {"name": "luma_ray", "plugin-class": "airflow_provider_luma.plugins.luma_ray.LumaRayPlugin"}
        ],
        "config": {
            "luma_ray": {
                "description": "How clips are shown in Airflow's UI.",
                "options": {
                    "preview_roots": {
                        "description": "Folders whose clips and start frames the UI shows to users who may read the "
                        "DAG, separated by commas: absolute local paths, or URIs in S3, GCS or Azure that include the "
                        "connection id. The API server reads them; symbolic links in them are not followed. Empty: "
                        "nothing is shown.",
                        "type": "string",
                        "version_added": "0.1.0",
                        "example": "/data/clips, /data/photos, s3://aws_default@clips/",
                        "default": "",
                    }
                },
            }
        },
        "connection-types": [
            {
                "connection-type": "luma_ray",
                "hook-class-name": "airflow_provider_luma.hooks.luma_ray.LumaRayHook",
                "hook-name": integration,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": {
                    "timeout": {
                        "label": "HTTP timeout (s)",
                        "description": "Seconds without a byte until a call times out",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": 60},
                    },
                    "requests_per_minute": {
                        "label": "Requests per minute",
                        "description": "The account's rate limit at Segmind, polls included",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": 60},
                    },
                    "download_timeout": {
                        "label": "Download timeout (s)",
                        "description": "How long one attempt may spend downloading a video",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": 3600},
                    },
                    "max_video_mb": {
                        "label": "Largest video (MB)",
                        "description": "Larger downloads are refused",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": 2048},
                    },
                    "allow_private_outputs": {
                        "label": "Fetch videos from private addresses",
                        "description": "Only if a proxy fetches them, or the API is inside your network",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                    "upload_url": {
                        "label": "Upload URL",
                        "description": "The server for uploads, if not the base URL",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                    "history_url": {
                        "label": "History URL",
                        "description": "The server with the request history, if not the base URL",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                },
            }
        ],
    }
