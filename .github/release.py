"""The changelog's entry of the version that a tag names: `python .github/release.py v1.2.3`.

Ends with a message where the tag is not the version of the package, or the entry is missing, empty or without a date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def entry(tag: str, package: str, changelog: str) -> str:
    """The text below the heading `## VERSION (YYYY-MM-DD)` of a changelog.

    Args:
        tag: `v` and a version.
        package: the text of the package's `__init__.py`.
        changelog: the text of CHANGELOG.md.

    Raises:
        SystemExit: with what is wrong, and what would be right.
    """
    found = re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)
    version = found[1] if found else "missing"
    if tag != f"v{version}":
        sys.exit(
            f"the tag is {tag}, but the version in src/preflab/__init__.py is {version}: tag v{version}, or change it"
        )
    heading = re.search(rf"^## {re.escape(version)} \((.+)\)\n", changelog, re.MULTILINE)
    if heading is None or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", heading[1]):
        sys.exit(
            f"CHANGELOG.md needs an entry under the heading '## {version} (YYYY-MM-DD)', with the date of the release"
        )
    text = re.split(r"^## ", changelog[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not text:
        sys.exit(f"the entry of {version} in CHANGELOG.md is empty: say what changed for users")
    return text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    print(
        entry(sys.argv[1], *((ROOT / name).read_text("utf-8") for name in ("src/preflab/__init__.py", "CHANGELOG.md")))
    )
