"""A word is one thing: in reports and tables, in `data inspect`, and in the page that shows two responses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import preflab
from preflab.core import words as definition
from preflab.core.rundir import write_jsonl
from preflab.core.words import words
from preflab.data.command import inspect_data
from preflab.data.settings import InspectSettings
from preflab.stats.study import Answer

COUNTED = {
    "It's 3.5 m, isn't it?": 5,
    "well-known — facts": 3,
    "  two\n\twords\u00a0\u3000here ": 3,
    "": 0,
    "。": 1,
    "今天天气好。": 6,
    "我喜欢喝茶。": 6,
    "我喜欢喝绿茶。": 7,
    "お茶を飲みます": 7,
    "コーヒー": 4,
    "ｺｰﾋｰ": 4,
    "人々は GPT-4 を使う。": 8,
    "I like 茶 very much": 5,
    "ฉันชอบดื่มชา": 8,
    "สวัสดี ครับ": 7,
    "ຂ້ອຍມັກຊາ": 6,
    "ខ្ញុំចូលចិត្ត": 5,
    "မင်္ဂလာပါ": 4,
    "나는 차를 좋아한다": 3,
    "𠀀𠀁": 2,
}


@pytest.mark.parametrize("text", COUNTED)
def test_words_are_counted_in_every_script(text: str) -> None:
    assert len(words(text)) == COUNTED[text], words(text)


@pytest.mark.parametrize("text", [text for text in COUNTED if text])
def test_inspect_counts_as_the_report_does(text: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": text, "chosen": f"{text} {text}", "rejected": text}] * 2)
    lengths = inspect_data(InspectSettings(source=(str(tmp_path / "pairs.jsonl"),))).inspection.lengths["words"]
    once = Answer(text, None, None, {}).words
    assert {part: found.mean for part, found in lengths.items()} == {
        "prompt": once,
        "chosen": 2 * once,
        "rejected": once,
    }


def test_the_page_splits_words_by_the_same_ranges() -> None:
    script = (Path(preflab.__file__).parent / "page" / "diff.js").read_text()
    found = dict(re.findall(r"^const (HAN_AND_KANA|THAI|LAO|KHMER|BURMESE) =\s*\"(.*)\";$", script, re.MULTILINE))
    for name, pattern in found.items():
        long = re.sub(r"\\\\u\{(\w{5})\}", r"\\U000\1", pattern)
        assert long.replace("\\\\", "\\") == getattr(definition, f"_{name}")
    assert len(found) == 5
