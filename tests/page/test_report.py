"""The report as a file: whole, well-formed, escaped, within its size, for every shape of study."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import CHAT, GOLD, tiny_study

from preflab.core.records import Message
from preflab.core.rundir import write_json
from preflab.core.words import words
from preflab.page import cells, layout
from preflab.page.layout import THEMES
from preflab.stats import wording
from preflab.stats.results import Estimate
from preflab.stats.study import Answer, Case, Player, Study
from preflab.studies.compare import page
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.cases import pack_cases
from preflab.studies.compare.figures import ReportFigure, report_figures
from preflab.studies.compare.page import render, write_report

pytestmark = pytest.mark.slow

VOID = {"meta", "input", "br", "link", "img", "hr", "wbr"}


class Outline(HTMLParser):
    """The tags of a page: every opened element is closed in its turn, and ids are unique."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> stands where another element is open"

    def handle_data(self, data: str) -> None:
        if not set(self.open) & {"script", "style", "svg"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def values(self, attribute: str) -> list[str]:
        return [value for _, found in self.tags if (value := found.get(attribute)) is not None]


def html_of(study: Study) -> str:
    return render(study, analyse(study), (), {})


def unpacked(html: str) -> Any:
    found = re.search(r'<script type="text/plain" id="case-data">([^<]*)</script>', html)
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return tiny_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def figures(study: Study) -> tuple[ReportFigure, ...]:
    return report_figures(study, analyse(study))


@pytest.fixture(scope="module")
def report(study: Study, figures: tuple[ReportFigure, ...]) -> str:
    """The study's report, figures (drawn once for all tests) and all."""
    manifest = {"command": "compare", "seed": 17, "started": ["2025-01-31T12:00:00Z"], "versions": {"preflab": "9.9"}}
    write_json(study.folder / "manifest.json", manifest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "report_figures", lambda *_: figures)
        write_report(study, analyse(study), study.folder / "report.html")
    return (study.folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_asks_for_nothing_outside(report: str) -> None:
    outline = Outline(report)
    assert outline.open == []
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    links = outline.values("href") + outline.values("xlink:href")
    assert all(link.startswith(("#", "data:")) for link in links)
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= set(ids)
    assert outline.values("src") == []
    assert "@import" not in report
    assert all(target.startswith(("#", "data:")) for target in re.findall(r"url\(['\"]?([^)'\"]+)", report))


def test_every_figure_and_finding_is_on_the_page_once(
    study: Study, figures: tuple[ReportFigure, ...], report: str
) -> None:
    analysis = analyse(study)
    shown = [panel for figure in figures for panel in figure.panels]
    assert len(shown) > 10
    assert [report.count(panel) for panel in shown] == [1] * len(shown)
    first_screen = report[: report.index('class="part"')]
    assert [figure.section for figure in figures if figure.panels[0] in first_screen] == ["answer"]
    assert analysis.findings
    assert all(" ".join(finding.text.split()) in Outline(first_screen).text for finding in analysis.findings)


def test_how_it_was_made_is_told_from_the_manifest(report: str) -> None:
    text = Outline(report).text
    assert "seed 17" in text
    assert "preflab 9.9" in text
    assert "runs/quickstart/dpo/model" in text


def test_the_first_screen_stands_before_scripts_and_cases(tmp_path: Path) -> None:
    html = html_of(tiny_study(tmp_path))
    place = [
        html.index(mark)
        for mark in ('<h1 id="question">Did it get better?', 'id="cases"', 'id="case-data"', "'use strict';")
    ]
    assert place == sorted(place)


def test_the_policy_allows_the_pages_own_scripts_alone(tmp_path: Path) -> None:
    html = html_of(tiny_study(tmp_path))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert policy[1].count("sha256-") == 2
    assert "script-src &#39;unsafe" not in policy[1]


def test_all_rows_are_in_the_page(tmp_path: Path) -> None:
    study = tiny_study(tmp_path, prompts=6, samples=2)
    data = unpacked(html_of(study))
    assert [(case["row"], case["sample"]) for case in data["cases"]] == [(c.row, c.sample) for c in study.cases]
    for packed, case in zip(data["cases"], study.cases, strict=True):
        assert [(m["role"], m["content"]) for m in packed["prompt"]] == [(m.role, m.content) for m in case.prompt]
        for model, answer in case.answers.items():
            assert packed["answers"][model] == {
                "text": answer.text,
                "words": len(words(answer.text)),
                "tokens": answer.tokens,
                "capped": answer.capped,
                "scores": answer.scores,
            }
        for (judge, model), verdict in case.verdicts.items():
            stored = packed["verdicts"][judge][model]
            assert (stored["outcome"], stored["points"]) == (verdict.outcome, verdict.points)
            for name in ("outcome", "order", "preference", "text", "reason"):
                assert [j[name] for j in stored["judgements"]] == [getattr(j, name) for j in verdict.judgements]


def test_the_same_study_gives_the_same_page(tmp_path: Path) -> None:
    study = tiny_study(tmp_path)
    assert pack_cases(study) == pack_cases(study)
    assert html_of(study) == html_of(study)


SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def with_answer(study: Study, text: str) -> Study:
    """The study with that text as the last model's answer to its first case."""
    first = study.cases[0]
    model = study.models[-1].name
    answers = {**first.answers, model: dataclasses.replace(first.answers[model], text=text)}
    return dataclasses.replace(study, cases=(dataclasses.replace(first, answers=answers), *study.cases[1:]))


def test_markup_in_names_and_texts_is_text(tmp_path: Path) -> None:
    study = tiny_study(tmp_path, models=("base", SCRIPT))
    named = dataclasses.replace(study, title=SCRIPT, models=(*study.models[:1], Player(SCRIPT, SCRIPT)))
    cases = tuple(dataclasses.replace(case, subset=SCRIPT) for case in named.cases)
    html = html_of(with_answer(dataclasses.replace(named, cases=cases), SCRIPT))
    outline = Outline(html)
    assert [tag for tag, _ in outline.tags].count("script") == 3
    assert outline.values("onerror") == []
    assert SCRIPT in outline.text


STRANGE = {
    "empty": "",
    "a very long word": "a" * 5000,
    "right to left": "שלום עולם، مرحبا",
    "emoji": "👩‍👩‍👧‍👦 🎉",
    "control characters": "a\x00b\x1b[31mc\x07\r\n\u202e",
    "half a surrogate pair": "half \ud83d here",
    "separators": "\u2028\u2029\ufeff",
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=list(STRANGE))
def test_strange_text_comes_through_unchanged(tmp_path: Path, text: str) -> None:
    study = with_answer(tiny_study(tmp_path, prompts=2), text)
    html = html_of(study)
    html.encode("utf-8")
    assert unpacked(html)["cases"][0]["answers"]["dpo"]["text"] == text


@pytest.mark.parametrize("name", STRANGE.values(), ids=list(STRANGE))
def test_strange_names_can_be_written(tmp_path: Path, name: str) -> None:
    study = dataclasses.replace(tiny_study(tmp_path, prompts=2, models=("base", name)), title=name)
    assert Outline(html_of(study).encode("utf-8").decode("utf-8")).open == []


@pytest.mark.parametrize(
    ("study", "absent", "present"),
    [
        ({"judges": ()}, {"scores", "judges"}, {"lengths", "diversity", "making"}),
        ({"judges": (GOLD,)}, set(), {"scores", "judges", "subsets"}),
        ({"judges": (CHAT,)}, set(), {"scores", "judges", "subsets"}),
        ({"prompts": 1}, set(), {"scores", "lengths"}),
        ({"models": ("base",)}, {"subsets"}, {"scores", "lengths"}),
        ({"models": ("base", "a", "b", "c", "d")}, set(), {"scores", "judges"}),
        ({"samples": 3}, set(), {"scores"}),
    ],
)
def test_every_shape_of_study_has_a_page(
    tmp_path: Path, study: dict[str, Any], absent: set[str], present: set[str]
) -> None:
    made = tiny_study(tmp_path, training=False, **study)
    outline = Outline(html_of(made))
    ids = set(outline.values("id"))
    assert outline.open == []
    assert "training" not in ids
    assert not absent & ids
    assert present <= ids
    assert "nan" not in outline.text.lower().split()
    assert "None" not in outline.text.split()


def test_tables_show_the_figures_of_the_analysis(tmp_path: Path) -> None:
    study = tiny_study(tmp_path, prompts=60)
    analysis = analyse(study)
    text = Outline(render(study, analysis, (), {})).text
    contest = analysis.contest("gpt-4o", "dpo", "base")
    assert contest is not None
    assert contest.win_rate is not None
    assert contest.wilson is not None
    low, high = (f"{100 * bound:.1f}" for bound in (contest.win_rate.low, contest.win_rate.high))
    assert f"{100 * contest.win_rate.value:.1f} % {low} to {high} % · n = {contest.win_rate.n}" in text
    assert f"{100 * contest.wilson[0]:.1f} to {100 * contest.wilson[1]:.1f} %" in text
    assert f"{contest.wins} wins {contest.ties} ties {contest.losses} losses {contest.errors} errors" in text
    gold = analysis.models[-1].scores["gold"]
    assert f"{gold.mean.value:.2f} ± {gold.std:.2f}" in text
    assert analysis.depth[0].statement in text


# ---- numbers ----


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (-1.234, "−1.23"),
        (0.0123, "0.012"),
        (0.0, "0.00"),
        (123.44, "123.4"),
        (5432.1, "5432"),
    ],
)
def test_numbers_are_shown_with_as_many_digits_as_they_bear(value: float | None, shown: str) -> None:
    assert wording.number(value) == shown


def test_an_interval_names_its_unit_once() -> None:
    assert cells.estimate(Estimate(0.5, 0.25, 0.75, 8), wording.exact_percent).detail == "25.0 to 75.0\u00a0%"
    assert cells.estimate(Estimate(-1, -2, 0.5, 8)).detail == "−2.00 to 0.50"
    assert wording.p_value(0.0001) == "< 0.001"
    assert wording.p_value(0.04) == "0.040"


# ---- size and looks ----


def realistic_study(folder: Path, prompts: int) -> Study:
    """Prompts with three answers of about 2,300 characters, as varied as English, and a judge with much to say."""
    words = random.Random(0)
    vocabulary = ["".join(words.choices("etaoinshrdlucmfwypvbgk", k=words.randint(2, 10))) for _ in range(6000)]
    weights = [1 / (rank + 2) for rank in range(len(vocabulary))]

    def text(characters: int) -> str:
        return " ".join(words.choices(vocabulary, weights, k=characters // 6))

    study = tiny_study(folder, prompts=prompts)
    cases: list[Case] = []
    for case in study.cases:
        answers = {name: Answer(text(2300), 500, False, answer.scores) for name, answer in case.answers.items()}
        verdicts = {
            key: dataclasses.replace(
                verdict, judgements=tuple(dataclasses.replace(j, text=text(600)) for j in verdict.judgements)
            )
            for key, verdict in case.verdicts.items()
        }
        prompt = (Message("user", text(400)),)
        cases.append(dataclasses.replace(case, prompt=prompt, answers=answers, verdicts=verdicts))
    return dataclasses.replace(study, cases=tuple(cases))


def test_a_thousand_prompts_take_less_than_ten_megabytes(tmp_path: Path, report: str) -> None:
    a_thousand = 10 * len(pack_cases(realistic_study(tmp_path, 100)))
    assert a_thousand > 2_000_000
    assert a_thousand + len(report.encode()) < 10_000_000


def luminance(color: str) -> float:
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast of two colours by WCAG 2.2, from 1 to 21."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_the_contrast_that_wcag_aa_asks(theme: str) -> None:
    colors = THEMES[theme]
    texts = ("ink", "muted", "accent", "good", "bad", "neutral", "warning")
    grounds = ("paper", "surface", "sunken")
    low = {(text, ground): contrast(colors[text], colors[ground]) for text in texts for ground in grounds}
    low |= {("ink", mark): contrast(colors["ink"], colors[mark]) for mark in ("only", "again")}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}
    parts = {name: contrast(colors[name], colors["paper"]) for name in ("win", "loss", "muted", "focus", "accent")}
    assert {name: value for name, value in parts.items() if value < 3} == {}


def test_every_colour_of_the_style_is_in_both_themes() -> None:
    style = "".join(map(layout._read, ("page.css", "base.html.j2", "page.html.j2", "experiment.html.j2")))
    used = set(re.findall(r"var\(--([a-z]+)\)", style))
    assert used <= set(THEMES["light"])
    assert set(THEMES["light"]) == set(THEMES["dark"])


@pytest.mark.parametrize("name", ["theme.js", "choices.js", *page.SCRIPTS])
def test_scripts_cannot_end_their_own_element(name: str) -> None:
    script = layout._read(name)
    assert not re.search(r"</script|<!--", script, re.IGNORECASE)
    assert "innerHTML" not in script
    assert "eval(" not in script
    assert len(script.splitlines()) < 400
