"""Functions as scorers: from a user's file or an installed package, wherever a reward model can stand."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from installed_package import install
from no_pictures import draw_nothing

from preflab.cli import main
from preflab.core.records import Message, UserError
from preflab.core.rundir import read_json, read_jsonl, write_jsonl
from preflab.judging.kinds import parse_judge, spec_of
from preflab.rewards.scorers import Scorer, find_scorer
from preflab.sample.score import load_scores, score_responses
from preflab.sample.settings import ScoreSettings
from preflab.stats.study import Judge
from preflab.studies.compare.analyse import analyse
from preflab.studies.compare.rows import read_study

EXAMPLES = Path(__file__).parents[2] / "examples"
PAIRS = (
    {"prompt": "Hi", "chosen": "Hello, glad to help, please ask", "rejected": "What"},
    {"prompt": "Tea?", "chosen": "Sorry, no", "rejected": "No thanks"},
    {"prompt": "Why", "chosen": "Because", "rejected": "Please guess"},
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with the example beside the data."""
    monkeypatch.setenv("PREFLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "scorer.py", "mine.py")
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    draw_nothing(monkeypatch, "preflab.sample.score.draw_pairs")
    return tmp_path


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0


def write(body: str) -> str:
    Path("own.py").write_text(f"def score(prompts, responses):\n    {body}\n")
    return "own.py"


def scored(scorer: str, **given: Any) -> dict[str, Any]:
    settings = ScoreSettings(data=("pairs.jsonl",), reward_model=scorer, output=Path("s.jsonl"), **given)
    return dict(score_responses(settings).summary)


def test_the_example_scores_from_a_users_folder(capsys: pytest.CaptureFixture[str]) -> None:
    run("score", "pairs.jsonl", "--reward-model", "mine.py:politeness", "--output", "s.jsonl")
    rows = [(row["score_chosen"], row["score_rejected"]) for row in read_jsonl(Path("s.jsonl"))]
    assert rows == [(2.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    summary = read_json(Path("s.summary.json"))
    assert summary["accuracy"] == 0.5, "right, a tie, wrong"
    assert summary["precision"] is None
    assert "scores: s.jsonl" in capsys.readouterr().out
    assert load_scores(Path("s.jsonl")).summary["accuracy"] == 0.5


def test_numbers_are_exact() -> None:
    tiny = 2.0**-30
    figures = scored(write(f"return [1 + {tiny} if r.endswith(('ask', 'no', 'use')) else 1 for r in responses]"))
    assert figures["accuracy"] == 1.0, "of a model in float32 these were ties"


def test_it_is_made_from_the_functions_file() -> None:
    spec = write("return [len(text) for text in responses]")
    before = scored(spec)
    manifest = read_json(Path("s.manifest.json"))
    assert manifest["data"]["reward_model"] == find_scorer(spec).fingerprint  # type: ignore[union-attr]
    Path("s.summary.json").unlink()
    assert scored(spec) == before
    write("return [-len(text) for text in responses]")
    with pytest.raises(UserError, match="reward_model"):
        scored(spec)
    assert scored(spec, overwrite=True)["reward_mean"] == -before["reward_mean"]


def test_what_is_not_finite_is_not_scored() -> None:
    spec = write("return [float('nan') if 'Sorry' in text else float(len(text)) for text in responses]")
    figures = scored(spec)
    assert (figures["rows"], figures["pairs"]) == (2, 2)
    assert figures["dropped"] == {"no score": {"count": 1, "rows": [2], "example": "its score is nan"}}
    assert [row["row"] for row in read_jsonl(Path("s.jsonl"))] == [1, 3]
    with pytest.raises(UserError, match=r"no response that can be scored\n  no score: 3, such as its score is inf"):
        scored(write("return [float('inf')] * len(responses)"), overwrite=True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1.0]", "own.py: the scorer returned 1 scores for 6 responses; it must return one number for each"),
        ("return 0.5", "own.py: the scorer returned 0.5; it must return one number for each response"),
        ("return ['1'] * len(responses)", "own.py: the scorer returned '1' as a score; it must return one number"),
        ("return [None] * len(responses)", "own.py: the scorer returned None as a score"),
        ("raise KeyError('tea')", "own.py line 2: KeyError: 'tea'"),
        ("return (1 / 0 for _ in responses)", "own.py line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "own.py line 2: SystemExit: 0"),
    ],
)
def test_what_is_wrong_with_a_function_is_told(body: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        scored(write(body))
    assert message in str(refused.value)
    assert not Path("s.jsonl").exists()


def test_what_only_a_reward_model_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"chat_template: only for reward models; length is a function"):
        scored("length", chat_template="chatml")


def test_a_function_gets_batches_and_any_numbers_will_do() -> None:
    sizes: list[int] = []

    def score(prompts: Sequence[Sequence[Message]], responses: list[str]) -> Any:
        assert isinstance(prompts[0][-1], Message)
        sizes.append(len(responses))
        answer = [len(responses.pop()) > 2, math.pi] if len(responses) == 2 else [7]
        return tuple(answer)

    from preflab.core.plugins import Plugin

    scorer = Scorer("f", Plugin(score, "here"))
    prompt = (Message("user", "q"),)
    assert scorer.scores([prompt] * 3, ["a", "bcd", "e"], batch_size=2) == [1.0, math.pi, 7.0]
    assert sizes == [2, 1]


def test_ours_by_name_and_as_judges() -> None:
    prompt = (Message("user", "What is tea?"),)
    assert find_scorer("length").scores([prompt], ["two words"], batch_size=1) == [2.0]  # type: ignore[union-attr]
    assert find_scorer("org/length") is None, "a reward model"
    for word, judge in {
        "reward:length": Judge("length", "scorer", "length"),
        "reward:gold": Judge("gold", "gold", "gold"),
        "reward:mine.py:politeness": Judge("mine-politeness", "scorer", "mine.py:politeness"),
        "kind=reward:mine.py": Judge("kind", "scorer", "mine.py"),
    }.items():
        assert parse_judge(word) == judge
        assert parse_judge(spec_of(judge)).source == judge.source
    Path("length").mkdir()
    with pytest.raises(UserError, match=r"write \./length"):
        find_scorer("length")
    assert find_scorer("./length") is None


def test_a_missing_function_is_told_before_anything_runs() -> None:
    with pytest.raises(UserError, match=r"there is no 'score' in it; it defines politeness"):
        scored("mine.py:score")
    Path("own.py").write_text("LIMIT = 3\n")
    with pytest.raises(UserError, match=r"own\.py: own\.py:LIMIT is 3; a scorer is a function"):
        scored("own.py:LIMIT")


def two_files() -> tuple[str, str]:
    said = {"base": ("No", "Why not", ""), "dpo": ("Please do", "Glad to", "Thanks")}
    for name, texts in said.items():
        write_jsonl(Path(f"{name}.jsonl"), [{"prompt": f"q{n}", "response": text} for n, text in enumerate(texts)])
    return "base.jsonl", "dpo.jsonl"


def test_compare_shows_scorers_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def shout(prompts, responses):\n    return [text.count('!') or float('nan') for text in responses]\n"
    install(tmp_path / "site", monkeypatch, "[preflab.scorers]\nshout = guest_scorer:shout\n", guest_scorer=text)
    scorers = [word for name in ("length", "mine.py:politeness", "shout") for word in ("--reward-model", name)]
    words = (*scorers, "--judge", "reward:gold", "--out", "study")
    run("compare", *two_files(), *words)
    judges = read_json(Path("study/study.json"))["judges"]
    assert [(judge["name"], judge["kind"]) for judge in judges] == [
        ("gold", "gold"),
        ("length", "scorer"),
        ("mine-politeness", "scorer"),
        ("shout", "scorer"),
    ]
    rows = list(read_jsonl(Path("study/scores/mine-politeness/dpo.jsonl")))
    assert [row["score"] for row in rows] == [1.0, 1.0, 1.0]
    assert list(read_jsonl(Path("study/scores/shout/dpo.jsonl"))) == [], "no score is finite"
    contests = {contest.judge: contest for contest in analyse(read_study(Path("study"))).contests}
    assert (contests["mine-politeness"].wins, contests["mine-politeness"].ties) == (3, 0)
    assert contests["shout"].errors == 3
    assert "scorer" in Path("study/report.html").read_text(encoding="utf-8")
    run("compare", *two_files(), *words)


def test_judge_by_a_scorer() -> None:
    base, dpo = two_files()
    run("judge", dpo, base, "--judge", "reward:mine.py:politeness", "--output", "v.json")
    document = read_json(Path("v.json"))
    assert document["win_counts"] == {"model": 3, "baseline": 0, "tie": 0, "error": 0}
    assert document["metadata"]["judge"] == "reward:mine.py:politeness"
    parameters = document["metadata"]["judge_parameters"]
    assert parameters == {"code": find_scorer("mine.py").fingerprint, "precision": None}  # type: ignore[union-attr]
