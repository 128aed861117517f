"""A judge that gives no verdict at all: its file is written, and the command ends as a failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fake_judge
import pytest
from fake_judge import FakeJudge

from preflab import cli
from preflab.judging.verdicts import read_verdicts


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJudge]:
    with fake_judge.serving(monkeypatch) as found:
        yield found


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return int(caught.value.code or 0)


def responses(path: Path, *texts: str) -> str:
    rows = [{"prompt": f"q{number}", "response": text} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_run_without_any_verdict_ends_as_a_failure_with_its_file_written(
    judge: FakeJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One pair is a tie without being asked about, which makes no verdict of the rest."""
    mine = responses(tmp_path / "mine.jsonl", "good one", "good two", "same")
    theirs = responses(tmp_path / "theirs.jsonl", "bad one", "bad two", "same")
    output = tmp_path / "v.json"
    arguments = ("judge", mine, theirs, "--judge", "openai:m", "--output", str(output))
    judge.body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "both are fine"}}]})
    assert ended(*arguments) == 1
    out, err = capsys.readouterr()
    assert f"Error: {output}: none of 4 judgements has a verdict" in err
    assert "error: 4 of 6 judgements: the last line of the reply is no verdict" in out
    assert [one.outcome for one in read_verdicts(output).judgements] == ["error"] * 4 + ["tie"] * 2
    judge.body = None
    assert ended(*arguments) == 0, "the same command asks again"
    assert [one.outcome for one in read_verdicts(output).judgements] == ["win"] * 4 + ["tie"] * 2
