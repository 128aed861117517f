"""The frame of every page: one HTML file that opens offline in any browser, its templates, colours and scripts.

A content security policy lets the page's own scripts run and nothing else, and lets no request leave: a response with a
script tag is text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from preflab.core.rundir import versions

_HERE = Path(__file__).parent

THEMES: Mapping[str, Mapping[str, str]] = {
    "light": {
        **{"paper": "#fcfbf8", "surface": "#ffffff", "sunken": "#f3f1ec", "line": "#dcd8cf", "grid": "#e4e1da"},
        **{"ink": "#1c2226", "muted": "#57626b", "accent": "#00629b", "focus": "#0072b2"},
        **{"good": "#00629b", "bad": "#a84300", "neutral": "#57626b", "warning": "#7a5600"},
        **{"win": "#0072b2", "tie": "#b4b1a8", "loss": "#d55e00", "only": "#fbe6c8", "again": "#dcedf8"},
    },
    "dark": {
        **{"paper": "#14181b", "surface": "#1b2024", "sunken": "#21282d", "line": "#384249", "grid": "#2d353b"},
        **{"ink": "#e9e6e0", "muted": "#a7b1b9", "accent": "#6cbcec", "focus": "#56b4e9"},
        **{"good": "#6cbcec", "bad": "#f39a62", "neutral": "#a7b1b9", "warning": "#e9ad28"},
        **{"win": "#56b4e9", "tie": "#6d757b", "loss": "#e8752a", "only": "#513510", "again": "#173f59"},
    },
}
"""The colours of a page, by name of the CSS variable (Okabe and Ito's hues, which colour-blind readers can tell apart).
The figures draw with --ink, --muted, --grid and --paper."""


def lay_out(template: str, scripts: Sequence[str], **content: Any) -> str:
    """A page from its template, which extends base.html.j2, and the files of its script besides choices.js."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(_HERE),
    )
    theme_script = _read("theme.js")
    script = "\n".join(["'use strict';", "{", *map(_read, ("choices.js", *scripts)), "}"])
    page = environment.get_template(template).render(
        **content,
        version=versions().get("preflab", ""),
        themes=THEMES,
        style=_read("page.css"),
        theme_script=theme_script,
        script=script,
        policy=_policy(theme_script, script),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair in a name cannot be written


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


def _policy(*scripts: str) -> str:
    """A content security policy under which exactly these inline scripts run, and nothing is fetched."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
