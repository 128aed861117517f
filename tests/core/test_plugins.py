"""Ours by name, a user's own by file, and that of an installed package by its entry point."""

from __future__ import annotations

from pathlib import Path

import pytest
from installed_package import install

from preflab.core.plugins import installed, load, names_plugin
from preflab.core.records import UserError

OURS = {"dpo": 1, "ipo": 2}


def test_ours_come_first_and_have_no_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "[preflab.objectives]\ndpo = guest_first:f\n", guest_first="def f(): pass\n")
    found = load("dpo", "objectives", OURS)
    assert (found.value, found.where, found.fingerprint, found.path) == (1, "preflab", "", None)


def test_the_nearest_name_of_all_that_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "[preflab.objectives]\nguest_loss = guest_near:f\n", guest_near="def f(): pass\n")
    with pytest.raises(UserError, match=r"no objective is called 'IPOO'; did you mean ipo\? Known are dpo, ipo, guest"):
        load("IPOO", "objectives", OURS)
    with pytest.raises(UserError, match="did you mean guest_loss"):
        load("guest_los", "objectives", OURS)
    with pytest.raises(
        UserError, match=r"no study is called 'zzz'\. Known are dpo, ipo, or your own file\.py:function"
    ):
        load("zzz", "studies", OURS)


def test_a_file_of_the_same_text_is_run_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def f(): return 1\n\n\nclass G: pass\n\n\nh = 3\n")
    first, again = load(f"{path}:f", "scorers", {}), load(f"{path}:f", "scorers", {})
    assert first.value is again.value
    assert first.value() == 1
    assert (first.where, first.path) == (str(path), path)
    assert load(f"{path}:h", "scorers", {}).value == 3, "a record, such as a line of a table"
    with pytest.raises(UserError, match=r"say which with .*mine\.py:NAME; it defines f, G"):
        load(str(path), "scorers", {})
    path.write_text("def f(): return 2\n")
    changed = load(str(path), "scorers", {})
    assert changed.value() == 2
    assert changed.fingerprint != first.fingerprint == again.fingerprint
    with pytest.raises(UserError, match=r"none\.py: no such file \(for the scorer .*none\.py:f\)"):
        load(f"{tmp_path}/none.py:f", "scorers", {})


def test_what_a_file_imports_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = "from __future__ import annotations\nimport os\nfrom math import log\nfrom dataclasses import dataclass\n"
    path.write_text(text + "@dataclass\nclass Own:\n    size: int = 3\n")
    assert load(str(path), "judges", {}).value().size == 3
    for name in ("os", "log", "dataclass", "_own"):
        with pytest.raises(UserError, match=f"there is no '{name}' in it; it defines Own"):
            load(f"{path}:{name}", "judges", {})


def test_a_relative_file_says_which_line_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def f():\n    return 1 / 0\n")
    found = load("mine.py:f", "scorers", {})
    with pytest.raises(ZeroDivisionError) as caught:
        found.value()
    assert found.place(caught.value) == "mine.py line 2"


def test_an_installed_packages_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[preflab.scorers]\nguest = guest_scorer:f\nbroken = guest_broken:f\nmissing = guest_scorer:g\n"
    install(tmp_path, monkeypatch, points, guest_scorer="def f(): return 1 / 0\n", guest_broken="import nothing_such\n")
    assert set(installed("scorers")) >= {"guest", "broken"}
    assert names_plugin("guest", "scorers")
    assert not names_plugin("guest", "judges")
    found = load("guest", "scorers", {})
    assert found.where == "guest 1.2"
    with pytest.raises(ZeroDivisionError) as caught:
        found.value()
    assert found.place(caught.value) == f"{tmp_path}/guest_scorer.py line 1"
    with pytest.raises(UserError, match=r"guest 1\.2: its entry point broken = guest_broken:f cannot be loaded: Mod"):
        load("broken", "scorers", {})
    with pytest.raises(UserError, match=r"entry point missing = guest_scorer:g cannot be loaded: AttributeError"):
        load("missing", "scorers", {})
    install(tmp_path, monkeypatch, points, guest_scorer="def f(): return 10\n")
    assert load("guest", "scorers", {}).fingerprint != found.fingerprint, "it follows the text"
