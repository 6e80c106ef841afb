"""Asks the vendor what this provider relies on, and shows which assumptions hold; buys one clip only if told to."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_luma import __version__
from airflow_provider_luma.cli import words
from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.segmind.contract import Finding, Outcome, examine, unanswered
from airflow_provider_luma.segmind.transcript import Exchange, Redactor, dump, load

#: Never changed: with other inputs, a clip that was bought before would not be found again.
_PROMPT = "A slow push-in on a soft gradient, its colours drifting gently"
_KEY = "contract"


def contract(args: argparse.Namespace) -> Iterator[str]:
    """Ask, buy if told to, and show what was found.

    :raises Refused: an assumption does not hold, nothing could be asked, or the purchase failed
    """
    if args.replay:
        yield from _shown(examine(_replayed(args.replay)))
        return
    if args.buy and not args.yes and not sys.stdin.isatty():
        raise Refused(
            "--buy needs a yes that a person types, or --yes.", "Nothing was asked or bought.", code=2
        )
    folder = Path(args.folder).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    check = _Check(args, folder)
    yield f"Asking {check.host} by connection {args.conn}. Transcript: {check.transcript}"
    check.ask()
    findings = examine(check.exchanges)
    failure = ""
    if args.buy and not (failure := _why_not(findings, check.exchanges, is_asked=not args.yes)):
        if not args.yes:
            yield from _lines(findings)
            _confirm(args, check, _broken(findings))
        failure = check.buy()
        findings = examine(check.exchanges)
        yield "" if failure else f"Bought, or found on record: {check.clip}"
    yield from _shown(findings, failure)


def _why_not(findings: list[Finding], exchanges: list[Exchange], *, is_asked: bool) -> str:
    """Say why nothing is bought; an empty string if nothing is against it.

    :param is_asked: whether a person will see the table and decide
    """
    missing = unanswered(exchanges)
    if missing or findings[0].outcome is not Outcome.HOLDS:
        told = f": {missing[0]}{' and others' * (len(missing) > 1)}" if missing else ""
        return f"Nothing was bought, as the key was not accepted, or a free call not answered{told}."
    if _broken(findings) and not is_asked:
        return "Nothing was bought: with --yes, every assumption about the free calls has to hold."
    return ""


class _Check:
    """One run: what was asked, redacted, and its transcript.

    :param folder: for the transcript, the frame, the clip and its record
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        from airflow_provider_luma.hooks.probe import Probe

        self._model = args.model
        self.exchanges: list[Exchange] = []
        self._redactor = Redactor(secrets.token_bytes(16))
        self._probe = Probe(args.conn, self._keep)
        self.host = self._probe.settings.api_url
        self.clip = folder / f"{args.model}.mp4"
        self._frame = folder / "frame.png"
        self.transcript = folder / f"transcript-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.json"
        self._write()

    def _keep(self, exchange: Exchange) -> None:
        self.exchanges.append(self._redactor.exchange(exchange))

    def _write(self) -> None:
        text = json.dumps(dump(self.exchanges, provider=__version__), indent=1)
        self.transcript.write_text(self._probe.without_key(text))

    def ask(self) -> None:
        """Ask everything that is free."""
        from airflow_provider_luma.hooks.probe import picture
        from airflow_provider_luma.media import read_frame

        if not self._frame.exists():
            self._frame.write_bytes(picture())
        try:
            self._probe.ask_for_free(self._model, read_frame(str(self._frame)))
        finally:
            self._write()

    def buy(self) -> str:
        """Buy one clip like any script does, or finish the one on record; return why it failed."""
        try:
            bought = self._probe.image_to_video(
                prompt=_PROMPT,
                start_frame=self._frame,
                output_path=self.clip,
                key=_KEY,
                model=self._model,
                api_version="v2",
            )
            self._probe.ask_after(str(bought["request_id"]))
        except LumaRayError as error:
            return str(error)
        except KeyboardInterrupt:
            return f"Stopped. What was bought is on record at {self.clip}; the same command finishes it."
        finally:
            self._write()
        return ""


def _confirm(args: argparse.Namespace, check: _Check, broken: list[str]) -> None:
    if broken:
        sys.stderr.write(f"Does not hold, so a lost answer may not be found again: {'; '.join(broken)}.\n")
    sys.stderr.write(
        f"This buys one clip of {args.model} {words.price(args.model)} at {check.host}, unless one is on record "
        f"at {check.clip}.\n"
    )
    try:
        answer = input("Type yes to buy it: ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer.strip().lower() != "yes":
        raise Refused("Not bought: the answer was not yes.")


def _replayed(name: str) -> list[Exchange]:
    try:
        return load(json.loads(Path(name).read_text()))
    except OSError as error:
        raise Refused(f"{name} cannot be read: {error}.", code=2) from None
    except ValueError as error:
        raise Refused(f"{name} cannot be replayed: {error}.", code=2) from None


def _shown(findings: list[Finding], failure: str = "") -> Iterator[str]:
    yield from _lines(findings)
    broken = _broken(findings)
    if broken:
        is_refused = findings[0].outcome is Outcome.BROKEN
        advice = "Check the connection's password." if is_refused else "Attach the transcript to a report."
        raise Refused(f"Does not hold: {'; '.join(broken)}.", failure, advice)
    if not any(one.outcome is Outcome.HOLDS for one in findings):
        raise Refused(f"Nothing could be checked: {findings[0].seen}", failure)
    if failure:
        raise Refused(failure)


def _broken(findings: list[Finding]) -> list[str]:
    return [one.assumption.text for one in findings if one.outcome is Outcome.BROKEN]


def _lines(findings: list[Finding]) -> Iterator[str]:
    """Yield a table and its sum."""
    head = ("", "assumption", "relied on in", "seen")
    rows = [
        head,
        *((one.outcome, one.assumption.text, one.assumption.where, one.seen) for one in findings),
    ]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
    counts = Counter(one.outcome for one in findings)
    yield f"{counts[Outcome.HOLDS]} hold, {counts[Outcome.BROKEN]} do not, {counts[Outcome.UNKNOWN]} unknown."
