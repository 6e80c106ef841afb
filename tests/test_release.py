"""A release's tag is its version's, and the changelog has it."""

from __future__ import annotations

import pytest

from airflow_provider_luma import __version__
from scripts import check_tag

DATED = f"# Changelog\n\n## [{__version__}] - 2026-12-01\n"


def test_a_tag_of_the_version_with_a_dated_section_is_right() -> None:
    assert check_tag.fault(f"v{__version__}", DATED) is None


@pytest.mark.parametrize(
    "tag", ["", "main", __version__, f"v{__version__}.1", f"v{__version__}rc1", "v9.9.9"]
)
def test_any_other_tag_is_wrong(tag: str) -> None:
    assert f"v{__version__}" in str(check_tag.fault(tag, DATED))


@pytest.mark.parametrize(
    "changelog", ["", "## [Unreleased]\n", f"## [{__version__}]\n", DATED.replace("## ", "### ")]
)
def test_a_version_without_a_dated_section_is_not_released(changelog: str) -> None:
    assert str(check_tag.fault(f"v{__version__}", changelog)).startswith("CHANGELOG.md")


def test_a_workflow_gives_the_tag_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_REF_NAME", "v9.9.9")
    assert "v9.9.9" in str(check_tag.main([]))
    assert "'v8'" in str(check_tag.main(["v8"]))
