"""The report as a reader uses it: a headless Chromium opens, sorts, searches, follows links, presses keys, saves."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_studies import FORMULA, SCRIPT, strange_study, tiny_study

from preflab.stats.study import Case, Study
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.page import render

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from browser import OpenPage

pytest_plugins = ("browser",)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return strange_study(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def address(study: Study) -> str:
    path = study.folder / "report.html"
    path.write_text(render(study, analyse(study), (), {}), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def window(open_page: OpenPage) -> Iterator[Any]:
    """One window for all tests, which must neither ask for anything nor complain."""
    with open_page(viewport={"width": 1440, "height": 900}) as page:
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        yield page
        assert {url.split("#")[0].split(":")[0] for url in asked} <= {"file", "blob", "about"}
        assert len({url.split("#")[0] for url in asked if url.startswith("file:")}) == 1
        assert complaints == []


@pytest.fixture
def page(window: Any, address: str) -> Any:
    return opened(window, address)


def opened(page: Any, address: str) -> Any:
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("#browser:visible")
    return page


def listed(page: Any) -> list[str]:
    return [str(item) for item in page.eval_on_selector_all("#list a", "links => links.map((a) => a.dataset.case)")]


def current(page: Any) -> str | None:
    found = re.match(r"Case (\d+/\d+)", page.text_content("#detail h3") if page.query_selector("#detail h3") else "")
    return found[1] if found else None


def wait_for_case(page: Any, case: str) -> None:
    """Until this case, and no other, is the open one."""
    page.wait_for_function("id => document.querySelector('#detail h3')?.textContent.startsWith(`Case ${id}`)", arg=case)
    assert current(page) == case


# ---- order, search, filters ----


def test_all_cases_can_be_reached_by_scrolling_the_list(page: Any, study: Study) -> None:
    assert 50 <= len(listed(page)) < len(study.cases)
    page.evaluate("document.getElementById('list-frame').scrollTop = 1e6")
    page.wait_for_function("() => document.getElementById('more').hidden")
    assert sorted(listed(page)) == sorted(case.sample_id for case in study.cases)


@pytest.mark.parametrize("order", ["gain", "loss", "tie", "longer", "shorter", "disagreement", "row"])
def test_the_order_can_be_chosen(page: Any, study: Study, order: str) -> None:
    def words(case: Case) -> int:
        return case.answers["dpo"].words - case.answers["base"].words

    def gain(case: Case) -> float:
        return case.answers["dpo"].scores["gold"] - case.answers["base"].scores["gold"]

    def spread(case: Case) -> float:
        points = [0.5 + ((gain(case) > 0) - (gain(case) < 0)) / 2]
        reward = case.answers["dpo"].scores["reward"] - case.answers["base"].scores["reward"]
        points.append(0.5 + ((reward > 0) - (reward < 0)) / 2)
        said = case.verdicts["gpt-4o", "dpo"].points
        points += [] if said is None else [said]
        return max(points) - min(points)

    keys = {"gain": lambda case: -gain(case), "loss": gain, "tie": lambda case: abs(gain(case))}
    keys |= {"longer": lambda case: -words(case), "shorter": words}
    keys |= {"disagreement": lambda case: -spread(case), "row": lambda case: case.row}
    if order != "gain":  # which is how the list begins
        page.select_option("#order", order)
    shown = listed(page)
    assert shown == [case.sample_id for case in sorted(study.cases, key=keys[order])][: len(shown)]


def test_search_finds_all_words_in_prompts_and_responses(page: Any) -> None:
    page.fill("#search", "ZEBRA Strasse")
    assert listed(page) == []
    assert page.is_visible("#nothing")
    page.fill("#search", "zebra  STRAßE café")
    assert sorted(listed(page)) == ["91/0", "91/1"]
    assert page.text_content("#count") == "2 of 98 cases"
    page.fill("#search", "kettle milk fool")  # from two answers of one case
    assert len(listed(page)) == 17


def test_cases_are_filtered_by_subset_and_outcome(page: Any, study: Study) -> None:
    page.select_option("#subset", label="odd")
    assert sorted(listed(page)) == [f"{row}/0" for row in range(101, 107)]
    page.select_option("#subset", label="all")
    page.select_option("#judge", "gpt-4o")
    for outcome, label in {"win": "dpo wins", "loss": "base wins", "tie": "tie", "error": "error"}.items():
        page.select_option("#outcome", label=label)
        expected = [c.sample_id for c in study.cases if c.verdicts["gpt-4o", "dpo"].outcome == outcome]
        assert sorted(listed(page)) == sorted(expected)


def test_other_models_can_be_compared(page: Any) -> None:
    page.select_option("#model-a", "dpo")
    page.select_option("#model-b", "base")
    page.select_option("#judge", "gpt-4o")
    page.select_option("#order", "row")
    page.click("#list a >> nth=0")
    assert "dpo wins" in page.text_content("#list li:first-child")  # seen from the other side
    assert "dpo wins · dpo shown first" in page.text_content("#detail .verdicts")
    page.select_option("#model-b", "sft")
    assert "not judged" in page.text_content("#list li:first-child")
    page.select_option("#judge", "gold")
    assert "dpo wins −0.90" in page.text_content("#list li:first-child")
    assert page.url.endswith("#case=1/0&a=dpo&b=sft&judge=gold"), "the address tells what is shown"


def test_cases_without_a_verdict_come_last(page: Any) -> None:
    page.select_option("#judge", "gpt-4o")
    for order in ("gain", "loss", "tie"):
        page.select_option("#order", order)
        while page.is_visible("#more"):
            page.press("#more", "Enter")  # a click would race with the list, which grows over the button
        words = page.eval_on_selector_all("#list .outcome", "all => all.map((one) => one.textContent)")
        assert words == sorted(words, key=lambda word: word == "error")
        assert words[-1] == "error"


# ---- one case ----


def test_a_case_shows_prompt_answers_scores_and_reasons(page: Any) -> None:
    page.select_option("#order", "row")
    page.click("#list a >> nth=3")
    wait_for_case(page, "4/0")
    assert page.locator("#detail .turn").all_text_contents() == [
        "userGood evening.",
        "assistantGood evening!",
        "userHow do I bake bread?",
    ]
    answers = page.locator("#detail .answer .text").all_text_contents()
    assert answers == [
        "Only a fool would ask. First mix the flour, then press the flour.",
        "Of course! First mix the flour, then knead the dough, then heat the oven.",
    ]
    assert "gold −0.30" in page.text_content("#detail .answer >> nth=0")
    assert "14 words" in page.text_content("#detail .answer >> nth=1")
    assert "dpo wins · base shown first" in page.text_content("#detail .verdicts")
    assert not page.is_visible("text=Reason 3: I say win.")
    page.click("#detail summary >> nth=0")
    assert page.is_visible("text=Reason 3: I say win.")


def test_differences_and_repetition_are_marked_and_can_be_hidden(page: Any, address: str) -> None:
    opened(page, f"{address}#case=4/0")
    assert page.locator("#detail .answer >> nth=0").locator("mark.only").all_text_contents() == [
        "Only a fool would ask.",
        "press the flour.",
    ]
    decoration = page.eval_on_selector("mark.only", "mark => getComputedStyle(mark).textDecorationLine")
    assert decoration == "underline", "not by colour alone"
    page.keyboard.press("d")
    assert page.locator("mark.only").count() == 0
    assert page.get_attribute("#mark-differences", "aria-pressed") == "false"
    opened(page, f"{address}#case=5/0")
    assert page.locator("mark.again").all_text_contents() == ["I could go on for hours. I could go on for hours."]
    page.click("#mark-repetition")
    assert page.locator("mark.again").count() == 0
    assert page.locator("mark.only").count() == 0
    assert "0 % of the wording is common" in page.text_content("#detail")


def test_errors_and_cap_hits_are_named(page: Any, address: str) -> None:
    opened(page, f"{address}#case=6/0&a=base&b=dpo&judge=gpt-4o")
    assert "cut at the token cap" in page.text_content("#detail .answer >> nth=0")
    assert "reason: no verdict" in page.text_content("#detail .verdicts")


def test_markup_in_a_response_is_shown_and_does_nothing(page: Any, address: str) -> None:
    opened(page, f"{address}#case=101/0")
    assert page.text_content("#detail .answer >> nth=1 >> .text") == SCRIPT
    assert page.locator("#detail img, #detail b, #detail script").count() == 0
    assert page.evaluate("window.ran") is None


def test_control_characters_are_shown_as_pictures(page: Any, address: str) -> None:
    opened(page, f"{address}#case=103/0")
    assert page.text_content("#detail .answer >> nth=1 >> .text") == "a␀b␛[31mc"
    opened(page, f"{address}#case=104/0")
    assert page.text_content("#detail .answer >> nth=1 >> .text") == "(empty response)"


# ---- links and keys ----


def test_a_link_opens_its_case_with_its_models_and_judge(page: Any, address: str) -> None:
    opened(page, f"{address}#case=91/1&a=sft&b=dpo&judge=reward")
    wait_for_case(page, "91/1")
    assert [page.input_value(f"#{name}") for name in ("model-a", "model-b", "judge")] == ["sft", "dpo", "reward"]
    assert page.locator("#detail").is_visible()
    page.goto(f"{address}#case=404/0")
    assert "no case 404/0" in page.text_content("#status")


def test_the_back_button_goes_from_case_to_case(page: Any) -> None:
    first, second = listed(page)[:2]
    page.click("#list a >> nth=0")
    wait_for_case(page, first)
    assert f"case={first}" in page.url
    page.click("#list a >> nth=1")
    wait_for_case(page, second)
    page.go_back()
    page.wait_for_function("id => document.querySelector('#detail h3').textContent.includes(`Case ${id}`)", arg=first)
    page.go_forward()
    page.wait_for_function("id => document.querySelector('#detail h3').textContent.includes(`Case ${id}`)", arg=second)


def test_the_link_can_be_copied(page: Any) -> None:
    page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }")
    page.click("#list a >> nth=0")
    page.click("#copy")
    page.wait_for_function("document.getElementById('status').textContent === 'Link copied.'")
    assert page.evaluate("window.copied") == page.url
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('forbidden')); }")
    page.click("#copy")
    page.wait_for_function("document.getElementById('status').textContent.includes(location.href)")


def test_everything_works_by_keys(page: Any) -> None:
    order = listed(page)
    for key, place in {"j": 0, "ArrowRight": 1}.items():
        page.keyboard.press(key)
        page.wait_for_function("id => document.querySelector('[aria-current]')?.dataset.case === id", arg=order[place])
        wait_for_case(page, order[place])
    page.keyboard.press("k")
    page.wait_for_function("id => document.querySelector('[aria-current]')?.dataset.case === id", arg=order[0])
    page.keyboard.press("Escape")
    page.wait_for_function("id => document.activeElement.dataset.case === id", arg=order[0])
    assert current(page) is None
    page.keyboard.press("ArrowDown")
    page.wait_for_function("id => document.activeElement.dataset.case === id", arg=order[1])
    page.keyboard.press("Enter")
    wait_for_case(page, order[1])
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("jk zebra?")
    assert page.input_value("#search") == "jk zebra?", "keys are text where one types"
    page.keyboard.press("Escape")
    assert page.input_value("#search") == ""


def test_help_opens_and_single_keys_can_be_switched_off(page: Any) -> None:
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.click("#shortcuts")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    page.keyboard.press("j")
    assert current(page) is None
    page.click("#keys")
    page.click("#shortcuts")
    page.click("#help button")
    page.keyboard.press("j")
    page.wait_for_selector("#detail h3")


# ---- exports ----


def saved(page: Any, button: str) -> str:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes().decode("utf-8")


def test_the_selection_is_saved_as_jsonl(page: Any, study: Study) -> None:
    page.select_option("#subset", label="odd")
    page.select_option("#order", "row")
    rows = [json.loads(line) for line in saved(page, "#export-jsonl").splitlines()]
    cases = [case for case in study.cases if case.subset == "odd"]
    assert [row["response_b"] for row in rows] == [case.answers["dpo"].text for case in cases]
    first = rows[0]
    assert first["prompt"] == [{"role": "user", "content": cases[0].prompt[0].content}]
    assert (first["row"], first["sample"], first["model_a"], first["model_b"]) == (101, 0, "base", "dpo")
    assert first["score_b:gold"] == cases[0].answers["dpo"].scores["gold"]
    assert (first["outcome_b:gold"], first["points_b:gold"], first["outcome_b:gpt-4o"]) == ("win", 1, "loss")


def test_the_selection_is_saved_as_csv_with_the_text_as_it_is(page: Any) -> None:
    page.select_option("#subset", label="odd")
    page.select_option("#order", "row")
    rows = list(csv.DictReader(io.StringIO(saved(page, "#export-csv"), newline="")))
    assert [row["row"] for row in rows] == [str(row) for row in range(101, 107)]
    assert rows[0]["response_b"] == SCRIPT
    assert rows[-1]["response_b"] == FORMULA
    assert float(rows[0]["score_a:gold"]) < 0


# ---- looks ----


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_nothing_scrolls_sideways(page: Any, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for case in ("#case=101/0", "#case=102/0", "#case=4/0", ""):
        opened(page, address + case)
        page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")
        wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= room
        reach = page.evaluate(
            "Math.max(...[...document.querySelectorAll('main *')].map((e) => e.getBoundingClientRect().right))"
        )
        assert reach <= room + 1, "nothing is cut off either"
    page.set_viewport_size({"width": 1440, "height": 900})


def luminance(page: Any, selector: str, part: str) -> float:
    color = page.eval_on_selector(selector, f"e => getComputedStyle(e).{part}")
    red, green, blue = (int(channel) for channel in re.findall(r"\d+", color)[:3])
    return (0.2 * red + 0.7 * green + 0.1 * blue) / 255


def test_light_and_dark_follow_the_system_the_button_and_the_printer(page: Any, address: str) -> None:
    page.evaluate("localStorage.clear()")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        opened(page, address)
        assert (luminance(page, "body", "backgroundColor") > 0.5) == (scheme == "light")
        assert (luminance(page, "body", "color") > 0.5) == (scheme == "dark")
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    assert luminance(page, "body", "backgroundColor") < 0.5
    opened(page, f"{address}#case=4/0")
    assert luminance(page, "body", "backgroundColor") < 0.5, "the choice is remembered"
    page.emulate_media(media="print")
    assert luminance(page, "body", "backgroundColor") > 0.5
    assert not page.is_visible("nav")
    assert not page.is_visible(".list-frame")
    assert page.is_visible("#detail h3")
    page.set_viewport_size({"width": 680, "height": 960})  # A4: tables stay tables
    assert page.eval_on_selector("#lengths td", "cell => getComputedStyle(cell).display") == "table-cell"
    page.set_viewport_size({"width": 1440, "height": 900})
    page.emulate_media(media="screen")
    page.evaluate("localStorage.clear()")


def test_the_page_stands_without_scripts(open_page: OpenPage, address: str) -> None:
    with open_page(java_script_enabled=False) as page:
        page.goto(address)
        assert page.is_visible("h1")
        assert page.is_visible("table >> nth=0")
        assert "The cases need JavaScript" in page.inner_text("#loading")
        assert not page.is_visible("#theme")


def test_a_browser_that_cannot_unpack_the_cases_is_told_so(open_page: OpenPage, address: str) -> None:
    with open_page() as page:
        page.add_init_script("delete window.DecompressionStream")
        page.goto(address)
        page.wait_for_selector("text=this browser is too old")


def test_a_study_without_judges_can_be_read(open_page: OpenPage, tmp_path: Path) -> None:
    study = tiny_study(tmp_path, judges=(), prompts=2)
    (tmp_path / "report.html").write_text(render(study, analyse(study), (), {}), encoding="utf-8")
    with open_page() as page:
        opened(page, (tmp_path / "report.html").as_uri())
        assert listed(page) == ["1/0", "2/0"]
        assert not page.is_visible("#judge")
        page.keyboard.press("j")
        page.wait_for_selector("#detail h3")
        assert page.locator(".verdicts").count() == 0
