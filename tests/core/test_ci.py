"""What CI and a fresh machine rely on: one command, a browser that is there or missed aloud, a seeded order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import browser
import pytest

ROOT = Path(__file__).parents[2]


def test_ci_runs_what_the_readme_says_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"make [\w-]+", script.split("set -euo", 1)[1]) == ["make browser", "make test"]
    assert "make test " in (ROOT / "README.md").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize(
    ("value", "ends"), [("true", "Failed"), ("1", "Failed"), ("", "Skipped"), ("false", "Skipped")]
)
def test_a_page_test_without_a_browser_fails_in_ci_and_is_skipped_elsewhere(
    value: str, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", value)
    monkeypatch.setattr(browser, "CHROMIUM", None)
    fixture: Any = browser.open_page
    with pytest.raises(BaseException, match="no browser is installed under the names chromium") as end:
        next(fixture.__wrapped__())
    assert type(end.value).__name__ == ends


def test_a_seed_shuffles_modules_and_the_tests_of_each(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    conftest: Any = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    names = [f"tests/test_{module}.py::test_{number}" for module in "abcde" for number in range(9)]

    def order(seed: str) -> list[str]:
        monkeypatch.setenv("PREFLAB_TEST_ORDER", seed)
        items: Any = [SimpleNamespace(nodeid=name) for name in names]
        conftest.pytest_collection_modifyitems(items)
        return [item.nodeid for item in items]

    assert order("") == names
    assert order("1") == order("1") != order("2")
    assert sorted(order("1")) == names
    modules = [name.partition("::")[0] for name in order("1")]
    assert len([1 for one, two in pairwise(modules) if one != two]) == 4, "modules stay together"


@pytest.mark.skipif(sys.platform == "win32", reason="make is not there")
def test_the_numerical_tests_of_other_machines_are_there() -> None:
    shown = subprocess.run(["make", "-n", "test-machines"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = re.findall(r"tests/\w+/test_\w+\.py", shown.stdout)
    assert len(files) == 24
    for setting in ("ATEN_CPU_CAPABILITY=default", "ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2"):
        assert setting in shown.stdout
