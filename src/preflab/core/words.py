"""The one definition of a word, for the lengths in `data inspect`, in reports and tables, and for variety.

A word is what stands between spaces, punctuation with it. Scripts that are written without spaces have no such
thing, so there each character is one: a Han character or a kana, and in Thai, Lao, Khmer and Burmese a letter with its
vowels and marks (which is about a syllable). A number of words compares texts of one language; set beside another
language's it says little.
"""

from __future__ import annotations

import re

_HAN_AND_KANA = r"\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_THAI = r"[\u0e40-\u0e44]?[\u0e01-\u0e2f][\u0e30-\u0e3a\u0e45-\u0e4e]*"
_LAO = r"[\u0ec0-\u0ec4]?[\u0e81-\u0eaf][\u0eb0-\u0ebd\u0ec6-\u0ece]*"
_KHMER = r"[\u1780-\u17b3](?:\u17d2[\u1780-\u17a2]|[\u17b4-\u17d1\u17d3\u17dd])*"
_BURMESE = r"[\u1000-\u102a\u103f](?:\u1039[\u1000-\u1021]|[\u102b-\u1038\u103a-\u103e])*"
_STARTS = rf"{_HAN_AND_KANA}\u0e01-\u0e2f\u0e40-\u0e44\u0e81-\u0eaf\u0ec0-\u0ec4\u1780-\u17b3\u1000-\u102a\u103f"
_WORD = re.compile("|".join([f"[{_HAN_AND_KANA}]", _THAI, _LAO, _KHMER, _BURMESE, rf"[^\s{_STARTS}]+"]))


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())
