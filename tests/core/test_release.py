"""A release is one tag: it equals the version, and the changelog has its entry; versions agree wherever they stand."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import yaml
from places import ROOT

import preflab

PACKAGE = '__version__ = "1.2.0"\n'
CHANGELOG = "# Changelog\n\n## 1.2.0 (2027-01-31)\n\n- New.\n\n## 1.1.0 (2026-12-01)\n\n- Old.\n"


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".github" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_text_of_a_release_is_its_entry(release: ModuleType) -> None:
    assert release.entry("v1.2.0", PACKAGE, CHANGELOG) == "- New."


@pytest.mark.parametrize(
    ("tag", "changelog", "message"),
    [
        ("v1.3.0", CHANGELOG, r"the tag is v1\.3\.0, but the version .* is 1\.2\.0"),
        ("1.2.0", CHANGELOG, r"tag v1\.2\.0"),
        ("v1.2.0", CHANGELOG.replace("2027-01-31", "unreleased"), r"needs an entry under the heading '## 1\.2\.0 \(Y"),
        ("v1.2.0", CHANGELOG.replace("1.2.0", "1.2.1"), r"needs an entry"),
        ("v1.2.0", CHANGELOG.replace("- New.\n", ""), r"is empty"),
    ],
)
def test_a_tag_without_its_version_or_its_entry_is_refused(
    release: ModuleType, tag: str, changelog: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        release.entry(tag, PACKAGE, changelog)


def test_the_version_is_the_same_wherever_it_stands() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == preflab.__version__
    assert f"\n## {preflab.__version__} (" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_public_workflow_runs_what_the_makefile_has() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12", "3.13"]
    run = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert run == ["sudo make browser", "make lint", "make test WORKERS=4", "make docs"]
    targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text("utf-8").splitlines() if ":" in line}
    assert {"browser", "lint", "test", "docs", "check"} <= targets
