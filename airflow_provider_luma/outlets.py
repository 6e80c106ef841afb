"""Asset events and lineage of a delivered video: without credentials, signatures or URLs of the vendor's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_luma.jobs.record import JobRecord


def announce(
    context: Context, outlets: Iterable[object], outputs: dict[str, Any], *, was_there: bool = False
) -> None:
    """Emit events for the assets among a task's outlets.

    An ``Asset`` stays as declared; an ``AssetAlias`` resolves to an asset with the video's URI. The event's ``extra``
    has ``video_path``, ``request_id``, ``credits_used``, ``remaining_credits`` and ``reused``. For a video that existed
    before, an alias gets no event, and the event that Airflow always emits for an ``Asset`` has ``"reused": true``, so
    that consumers can skip it.

    :param outputs: the operator's XComs
    :param was_there: whether the video existed before this attempt
    """
    from airflow.sdk import Asset, AssetAlias
    from airflow.sdk.definitions.asset import AssetRef

    path = _without_conn_id(outputs["video_path"])
    extra = {name: outputs[name] for name in ("request_id", "credits_used", "remaining_credits")}
    extra = {"video_path": path, **extra, "reused": was_there}
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            if was_there:
                continue
            context["outlet_events"][outlet].add(Asset(asset_uri(path)), extra=extra)
        elif isinstance(outlet, Asset | AssetRef):
            context["outlet_events"][outlet].extra.update(extra)


def asset_uri(path: str) -> str:
    """Return a video's URI: ``file://`` for a local path, else the path without its ``conn_id@``."""
    scheme, separator, rest = _without_conn_id(path).partition("://")
    return f"{scheme}://{quote(rest, safe='/:+=,@&!~')}" if separator else Path(path).as_uri()


def lineage(record: JobRecord) -> OperatorLineage[Any, Any]:
    """Return the OpenLineage datasets: frame in, video out."""
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    def dataset(path: str) -> Dataset:
        if path.startswith(("http://", "https://")):
            url = urlsplit(path)
            return Dataset(namespace=f"{url.scheme}://{url.netloc}", name=url.path or "/")
        scheme, separator, rest = _without_conn_id(path).partition("://")
        bucket, _, key = rest.partition("/")
        return (
            Dataset(namespace=f"{scheme}://{bucket}", name=key)
            if separator
            else Dataset(namespace="file", name=path)
        )

    frames = [record.start_frame] if record.start_frame else []
    return OperatorLineage(inputs=[*map(dataset, frames)], outputs=[dataset(record.output_path)])


def _without_conn_id(path: str) -> str:
    scheme, separator, rest = path.partition("://")
    if not separator:
        return path
    bucket, slash, key = rest.partition("/")
    return f"{scheme}://{bucket.rpartition('@')[2]}{slash}{key}"
