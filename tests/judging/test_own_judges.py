"""A judge of the user's own, from a file or an installed package, asked as any judge is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from installed_package import install

from preflab.cli import main
from preflab.core.records import UserError
from preflab.core.rundir import read_json, write_jsonl
from preflab.judging.command import judge_responses
from preflab.judging.kinds import parse_judge
from preflab.judging.settings import JudgeSettings
from preflab.judging.verdicts import VerdictFile, read_verdicts
from preflab.judging.winrate import WinrateSettings, compute_winrate
from preflab.stats.definitions import MEAN_PREFERENCE, TIES_HALF
from preflab.stats.study import Judge

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPTS = ("Where do otters sleep", "What is tea")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Responses of two models, in a user's folder: ours takes up the first question, both the second one alike."""
    monkeypatch.setenv("PREFLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    said = {"ours": ("otters sleep at sea", "tea maybe"), "theirs": ("I do not know", "tea of course")}
    for name, responses in said.items():
        rows = [{"prompt": prompt, "response": text} for prompt, text in zip(PROMPTS, responses, strict=True)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return "ours.jsonl", "theirs.jsonl"


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0


def judged(files: tuple[str, str], judge: str, **given: object) -> VerdictFile:
    values = {"responses": files[0], "opponent": files[1], "judge": judge, "output": Path("v.json"), **given}
    result = judge_responses(JudgeSettings.model_validate(values))
    return read_verdicts(Path("v.json")) if result else result


def test_the_example_judges_from_a_users_folder(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(EXAMPLES / "judge.py", "mine.py")
    run("judge", *files, "--judge", "mine.py:on_topic")
    document = read_json(Path("runs/verdicts/ours-vs-theirs.mine-on_topic.json"))
    assert document["metadata"]["judge"] == "mine.py:on_topic"
    assert document["win_counts"] == {"model": 1, "baseline": 0, "tie": 1, "error": 0}
    rows = [(row["presentation_order"], row["verdict"], row["raw"]) for row in document["results"]]
    assert rows[:2] == [("model_first", "model", "A"), ("baseline_first", "model", "B")]
    assert {row[1:] for row in rows[2:]} == {("tie", "tie")}
    assert "flip rate  0.000" in capsys.readouterr().out


def test_it_is_asked_once_for_the_same_question(files: tuple[str, str]) -> None:
    text = "from pathlib import Path\n\n\ndef judge(prompt, first, second):\n"
    text += "    with Path('calls').open('a') as file:\n        print(prompt[-1].content, file=file)\n    return 0.75\n"
    Path("mine.py").write_text(text)
    found = judged(files, "mine.py")
    assert [(each.preference, each.outcome) for each in found.judgements] == [(0.75, "win"), (0.25, "loss")] * 2
    assert Path("calls").read_text().splitlines() == [prompt for prompt in PROMPTS for _ in range(2)]
    judged(files, "mine.py", overwrite=True)
    judged(files, "mine.py", output=Path("other.json"))
    assert len(Path("calls").read_text().splitlines()) == 4, "from the cache"
    Path("mine.py").write_text(text.replace("0.75", "0.5"))
    with pytest.raises(UserError, match="code"):
        judged(files, "mine.py")
    found = judged(files, "mine.py", overwrite=True)
    assert {each.outcome for each in found.judgements} == {"tie"}
    assert len(Path("calls").read_text().splitlines()) == 8
    (figures,) = compute_winrate(WinrateSettings(files=(Path("v.json"),))).files
    assert figures.contest.definition == MEAN_PREFERENCE


def test_what_fails_is_an_error_and_asked_again(files: tuple[str, str]) -> None:
    Path("mine.py").write_text(
        "from pathlib import Path\n\n\ndef judge(prompt, first, second):\n"
        "    if 'tea' in prompt[-1].content and not Path('mended').exists():\n        raise KeyError('tea')\n"
        "    return 'A'\n"
    )
    found = judged(files, "mine.py:judge", orders="random", seed=3)
    (error,) = (each for each in found.judgements if each.outcome == "error")
    assert error.reason == "mine.py line 6: KeyError: 'tea'"
    Path("mended").touch()
    found = judged(files, "mine.py:judge", orders="random", seed=3)
    assert not any(each.outcome == "error" for each in found.judgements)
    (figures,) = compute_winrate(WinrateSettings(files=(Path("v.json"),))).files
    assert figures.contest.definition == TIES_HALF


@pytest.mark.parametrize("wrong", ["'C'", "'a'", "True", "None", "1.5", "float('nan')", "'0.5'", "[0.5]", "-0.1"])
def test_what_is_no_verdict_is_an_error(wrong: str, files: tuple[str, str]) -> None:
    Path("mine.py").write_text(f"def judge(prompt, first, second):\n    return {wrong}\n")
    found = judged(files, "mine.py")
    assert {each.outcome for each in found.judgements} == {"error"}
    assert '"A" (the first is better), "B", "tie", or the probability' in found.judgements[0].reason
    assert "mine returned" in found.judgements[0].reason


def test_a_function_that_always_fails_stops_with_its_line(files: tuple[str, str]) -> None:
    rows = [{"prompt": f"question {number}", "response": "yes"} for number in range(15)]
    for file, text in zip(files, ("yes", "no"), strict=True):
        write_jsonl(Path(file), [{**row, "response": text} for row in rows])
    Path("mine.py").write_text("def judge(prompt, first):\n    return 'A'\n")
    with pytest.raises(UserError, match=r"mine\.py: TypeError: judge\(\) takes 2 .* \(20 times in a row\)"):
        judged(files, "mine.py")


def test_an_installed_judge_goes_by_its_name(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def longest(prompt, first, second):\n    return float(len(first) > len(second))\n"
    install(tmp_path / "site", monkeypatch, "[preflab.judges]\nlongest = guest_judge:longest\n", guest_judge=text)
    assert parse_judge("longest") == Judge("longest", "function", "longest")
    found = judged(files, "mine=longest")
    assert [each.preference for each in found.judgements] == [1.0, 1.0, 0.0, 0.0]
    assert found.metadata["judge_name"] == "mine"
    run("compare", "theirs.jsonl", "ours.jsonl", "--judge", "longest", "--out", "study")
    study = json.loads(Path("study/study.json").read_text())
    assert study["judges"] == [{"name": "longest", "kind": "function", "source": "longest"}]
    assert "function that compares" in Path("study/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("none.py:judge", r"none\.py: no such file \(for the judge none\.py:judge\)"),
        ("opnai:gpt-4o", r"did you mean openai:gpt-4o\?"),
        ("golden", r"did you mean gold\?"),
        ("human:me", "write openai:MODEL"),
    ],
)
def test_what_is_no_judge_is_told(word: str, message: str, files: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=message):
        judged(files, word)


def test_a_dry_run_reads_no_tokens(files: tuple[str, str]) -> None:
    shutil.copy(EXAMPLES / "judge.py", "mine.py")
    cost = judge_responses(JudgeSettings(responses=files[0], opponent=files[1], judge="mine.py:on_topic", dry_run=True))
    assert "to ask for   4" in str(cost)
    assert "input tokens   0" in str(cost)
