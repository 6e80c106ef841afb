"""The documentation is true where that can be checked: its code runs, its commands parse, its names exist."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import DAG, task

from airflow_provider_luma import exceptions
from airflow_provider_luma.batch import plan_batch
from airflow_provider_luma.cli import main as cli
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.provider_info import get_provider_info
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.simulator.faults import Fault
from scripts import check_links

REPO = Path(__file__).resolve().parent.parent
DOCS = REPO / "docs"
README = REPO / "README.md"
PAGES = [*sorted(DOCS.glob("*.md")), README]
FENCE = re.compile(r"^(`{3,})(\S*)[^\n]*\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
#: What Sphinx itself checks.
DIRECTIVES = {"{eval-rst}", "{image}", "{include}", "{literalinclude}", "{toctree}"}
PLACEHOLDER = re.compile(r"<[a-z][^<>]*>", re.IGNORECASE)
#: The README says in comments where these come from.
KNOWN = {
    "LumaRayHook": LumaRayHook,
    "LumaRayImageToVideoOperator": LumaRayImageToVideoOperator,
    "plan_batch": plan_batch,
    "task": task,
}


def blocks(language: str) -> list[Any]:
    """Return the code blocks in a language, with the page of each; a block of no language is for the shell."""
    return [
        pytest.param(code, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (_, found, code) in enumerate(FENCE.findall(page.read_text()), 1)
        if (found or "bash") == language
    ]


def text(page: str) -> str:
    return (DOCS / f"{page}.md").read_text()


def first_column(page: str) -> list[str]:
    """Return the first cells of a page's table rows."""
    return re.findall(r"^\| (.*?) \|", text(page), re.MULTILINE)


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    found = {language for page in PAGES for _, language, _ in FENCE.findall(page.read_text())}
    assert found - DIRECTIVES == {"", "bash", "console", "ini", "json", "python", "yaml"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_runs(
    page: Path, simulator: Simulator, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page's blocks run one after the other, as its reader would have them in one file."""
    connection = {"conn_type": "luma_ray", "password": simulator.api_key, "host": simulator.url}
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", json.dumps(connection))
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "coffee.jpg").write_bytes(frame.read_bytes())
    names = dict(KNOWN) if page == README else {}
    with DAG("documented", schedule=None):
        for _, language, code in FENCE.findall(page.read_text()):
            if language == "python":
                exec(compile(code.replace("/data/", f"{tmp_path}/"), page.name, "exec"), names)


@pytest.mark.parametrize("code", blocks("bash"))
def test_shell_parses(code: str) -> None:
    checked = subprocess.run(["bash", "-n"], input=PLACEHOLDER.sub("X", code), capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("code", blocks("bash"))
def test_commands_exist(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "run", lambda command, args: 0)
    program = (REPO / "airflow_provider_luma" / "simulator" / "__main__.py").read_text()
    makefile = (REPO / "Makefile").read_text()
    for line in PLACEHOLDER.sub("X", code).replace("\\\n", "").splitlines():
        match list(dropwhile(re.compile(r"\w+=").match, shlex.split(line, comments=True))):
            case ["python", "-m", "airflow_provider_luma", *arguments]:
                assert cli.main(arguments) == 0
            case ["python", "-m", "airflow_provider_luma.simulator", *arguments]:
                for option, value in pairwise(arguments):
                    assert not option.startswith("--") or f'"{option}"' in program
                    if option == "--fault":
                        Fault.from_text(value)
            case ["curl", "-d", body, url] if url.endswith("/faults"):
                Fault.from_json(json.loads(body))
            case ["curl", "-d", body, _]:
                assert json.loads(body)
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("code", blocks("console"))
def test_output_is_what_the_command_prints(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, _, output = code.partition("\n")
    assert cli.main(shlex.split(command.removeprefix("$ python -m airflow_provider_luma"))) == 0
    assert capsys.readouterr().out == output


@pytest.mark.parametrize("code", blocks("json"))
def test_json_parses(code: str) -> None:
    assert json.loads(code)


@pytest.mark.parametrize("code", blocks("yaml"))
def test_yaml_parses(code: str) -> None:
    values = yaml.safe_load(code)
    for section, options in values["config"].items():
        assert_options_exist((section, option) for option in options)


@pytest.mark.parametrize("code", blocks("ini"))
def test_airflows_configuration_parses(code: str) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(code)
    assert_options_exist((section, option) for section in parser.sections() for option in parser[section])


def test_named_options_exist_with_these_defaults() -> None:
    rows = re.findall(r"^\| `\[(\w+)\] (\w+)` \| (\w+) \|", text("configuration"), re.MULTILINE)
    assert len(rows) > 5
    assert_options_exist((section, option) for section, option, _ in rows)
    for section, option, default in rows:
        if section != "luma_ray":
            assert str(conf.get_default_value(section, option)).lower() == default.lower(), option


def assert_options_exist(options: Any) -> None:
    for section, option in options:
        if section == "luma_ray":
            assert option in get_provider_info()["config"]["luma_ray"]["options"]
        else:
            assert conf.get_default_value(section, option) is not None, (section, option)


def test_all_fields_of_the_connection_are_explained() -> None:
    (kind,) = get_provider_info()["connection-types"]
    fields = {"password", "host", *(f"`{name}`" for name in kind["conn-fields"])}
    assert fields == set(first_column("connection")) - {"---", "field", "extra"}


def test_all_errors_are_explained() -> None:
    rows = " ".join(first_column("money"))
    assert [name for name in exceptions.__all__ if name not in rows] == ["LumaRayError"]


def test_quoted_messages_are_ours() -> None:
    source = " ".join(path.read_text() for path in (REPO / "airflow_provider_luma").rglob("*.py"))
    source = re.sub(r'"\s+f?"', "", source)
    quoted = [
        part for cell in first_column("troubleshooting") for part in re.findall(r"`([^`]+ [^`]+)`", cell)
    ]
    assert len(quoted) > 5
    assert [part for part in quoted if part not in source] == []


def test_pages_that_the_readme_names_exist() -> None:
    named = re.findall(r"docs/\w[\w.-]*\.md", README.read_text())
    assert named
    assert [name for name in named if not (REPO / name).exists()] == []


@pytest.mark.parametrize(
    ("link", "is_broken"),
    [
        ("other.html", False),
        ("other.html#there", False),
        ("#here", False),
        ("https://example.com/gone", False),
        ("gone.html", True),
        ("other.html#gone", True),
        ("#gone", True),
        ("picture.png", True),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, link: str, is_broken: bool) -> None:
    (tmp_path / "index.html").write_text(f'<h1 id="here">A</h1><a href="{link}">B</a>')
    (tmp_path / "other.html").write_text('<h1 id="there">C</h1>')

    assert check_links.broken(tmp_path) == ([f"index.html: {link}"] if is_broken else [])
