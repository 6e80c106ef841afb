"""The web app. Every route is a GET, needs a sign-in, and shows only DAGs that Airflow lets the user read."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, FastAPI, HTTPException, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_luma.jobs.record import IN_FLIGHT, Identity
from airflow_provider_luma.plugins import lists, words
from airflow_provider_luma.plugins.access import Readable, User, check_access
from airflow_provider_luma.plugins.clip import ShownClip, find_clip
from airflow_provider_luma.plugins.folders import OPTION, SECTION, Opened, configured
from airflow_provider_luma.plugins.index import Entry, Index
from airflow_provider_luma.plugins.media import send_file
from airflow_provider_luma.segmind.money import usd

_HERE = Path(__file__).parent
_CSS, _JS = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
_STATIC = {
    "app.css": _CSS,
    "app.js": _JS,
    "icon.svg": "image/svg+xml",
    "icon-dark.svg": "image/svg+xml",
    "plots.js": _JS,
    "uplot.css": _CSS,
    "uplot.js": _JS,
}
#: The gallery lists this many jobs that need a person, and this many in flight; the filter finds the rest.
_SHOWN_AT_TOP = 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
_NUMBER = re.compile(r"[0-9]{1,9}")
#: For an unmapped task, Airflow does not fill the placeholder in.
_UNMAPPED = ("{MAP_INDEX}", "-1")


@cache
def _index() -> Index:
    return Index(configured())


def _identity(dag_id: str, run_id: str, task_id: str, map_index: str, key: str | None = None) -> Identity:
    if map_index not in _UNMAPPED and not _NUMBER.fullmatch(map_index):
        raise HTTPException(404, "Not found")
    index = -1 if map_index in _UNMAPPED else int(map_index)
    return Identity(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=index, key=key)


def _on_record(identity: Annotated[Identity, Depends(_identity)]) -> ShownClip | None:
    return find_clip(_index(), identity)


OnRecord = Annotated[ShownClip | None, Depends(_on_record)]
_CLIP = "/clip/{dag_id}/{run_id}/{task_id}/{map_index}"


def make_app() -> FastAPI:
    """Return the web app."""
    # FastAPI's pages about the API itself skip the dependencies: they would be open to everybody.
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # would redirect before the sign-in, to whatever host the request claims
        dependencies=[Depends(check_access)],
    )
    app.add_middleware(_Headers)
    app.get(_CLIP, response_class=HTMLResponse)(clip_page)
    app.get(f"{_CLIP}/video")(clip_video)
    app.get(f"{_CLIP}/poster")(clip_poster)
    app.get("/run/{dag_id}/{run_id}", response_class=HTMLResponse)(run_page)
    app.get("/gallery", response_class=HTMLResponse)(gallery_page)
    app.get("/static/{name}")(static)
    return app


def clip_page(
    request: Request, identity: Annotated[Identity, Depends(_identity)], clip: OnRecord
) -> Response:
    """Show one task instance's clip."""
    index = _index()
    others = lists.contact_sheet(index.snapshot().others(identity))
    states = {entry.state for entry in others} | ({clip.take.state} if clip else set())
    return _page(
        "clip.html",
        depth=5,
        identity=identity,
        clip=clip,
        poster=clip is not None and clip.has_poster(index.folders),
        others=others,
        is_live=not states.isdisjoint(IN_FLIGHT),
        is_configured=bool(index.folders),
        shown=_may_have_poster,
    )


def clip_video(request: Request, clip: OnRecord) -> Response:
    """Send the video."""
    return _send(request, clip.open_video() if clip else None)


def clip_poster(request: Request, clip: OnRecord) -> Response:
    """Send the start frame."""
    return _send(request, clip.open_poster(_index().folders) if clip else None)


def _send(request: Request, found: tuple[Opened, str] | None) -> Response:
    if found is None:
        raise HTTPException(404, "Not found")
    return send_file(request, *found)


def run_page(dag_id: str, run_id: str) -> Response:
    """Show the clips of a run."""
    index = _index()
    takes = index.snapshot().of_run(dag_id, run_id)
    entries = lists.contact_sheet(takes)
    counts = Counter(words.label(entry.state, entry.error) for entry in entries)
    return _page(
        "run.html",
        depth=3,
        run_id=run_id,
        entries=entries,
        counts=sorted(counts.items()),
        total=lists.total(takes),
        is_live=any(entry.state in IN_FLIGHT for entry in entries),
        is_configured=bool(index.folders),
        shown=_may_have_poster,
    )


def gallery_page(
    request: Request,
    user: User,
    dag: str = "",
    state: str = "",
    since: str = "",
    until: str = "",
    page: str = "",
) -> Response:
    """Show the newest clips of all DAGs that the user may read, and what they cost."""
    index = _index()
    snapshot = index.snapshot()
    wish = lists.Wish(dag, state, _day(since), _day(until), int(page) if _NUMBER.fullmatch(page) else 1)
    shown = lists.gallery(snapshot.entries, Readable(request, user), wish)
    asked = {"dag": dag, "state": state, "since": wish.since or "", "until": wish.until or ""}
    return _page(
        "gallery.html",
        depth=1,
        gallery=shown,
        plots={
            "spending": _plot([(_midnight(day), amount) for day, amount in shown.spending]),
            "balances": {conn_id: _plot(points) for conn_id, points in shown.balances.items()},
        },
        query=lambda number: urlencode(
            {name: value for name, value in asked.items() if value} | {"page": number}
        ),
        states=lists.STATES,
        shown_at_top=_SHOWN_AT_TOP,
        is_whole=snapshot.is_whole,
        is_configured=bool(index.folders),
        shown=_may_have_poster,
    )


def _clip_path(identity: Identity, part: str = "", version: str | None = None) -> str:
    """Return where a clip's page is in this app, or a part of it.

    :param version: changes the URL when the part changes
    """
    ids = (identity.dag_id, identity.run_id, identity.task_id, str(identity.map_index))
    query = {name: value for name, value in (("key", identity.key), ("v", version)) if value is not None}
    path = "/".join(("clip", *(quote(one, safe="") for one in ids)))
    return f"{path}{part}" + (f"?{urlencode(query)}" if query else "")


def _may_have_poster(entry: Entry) -> bool:
    """Whether it is worth asking for a poster; the picture is only checked when a browser does."""
    source = entry.start_frame
    return source is not None and any(folder.name_of(source) for folder in _index().folders)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _plot(points: Iterable[tuple[datetime, Decimal]]) -> list[list[float]]:
    """Return a plot's seconds and dollars."""
    known = list(points)
    return [[moment.timestamp() for moment, _ in known], [float(amount) for _, amount in known]]


def static(name: str) -> Response:
    """Send a style sheet or a script."""
    if name not in _STATIC:
        raise HTTPException(404, "Not found")
    content, _ = _static_file(name)
    headers = {"Content-Type": _STATIC[name], "Cache-Control": "private, max-age=86400"}
    return Response(content, headers=headers)


@cache
def _static_file(name: str) -> tuple[bytes, str]:
    content = (_HERE / "static" / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "clip_path": _clip_path,
        "words": words,
        "usd": usd,
        "option": f"[{SECTION}] {OPTION}",
    }
    return environment


def _page(template: str, *, depth: int, **values: Any) -> HTMLResponse:
    """Render a page.

    :param depth: how many folders below the app's own its URL is
    """
    up = "../" * (depth - 1)
    assets = {name.replace(".", "_"): f"{up}static/{name}?v={_static_file(name)[1]}" for name in _STATIC}
    text = _templates().get_template(template).render(up=up, **assets, **values)
    # JSON may hold half a surrogate pair, which cannot be encoded.
    return HTMLResponse(text.encode(errors="replace"), headers={"Cache-Control": "no-store"})


class _Headers:
    """Adds the security headers to every reply, refusals too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)
