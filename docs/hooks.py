"""The pages of the site that are made of what stands elsewhere: README.md, other files of the root, and the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import preflab
from preflab.cli import app
from preflab.commands import COMMANDS
from preflab.data.formats import FORMATS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "preflab"

PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "README.md": "tutorial.md",
}
"""Files of the root -> the page that shows them."""

KINDS = {
    "ranking": "preferences",
    "unpaired": "responses with labels",
    "demonstration": "demonstrations",
    "prompts": "prompts",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    start, results = readme_parts()
    pages = {
        "index.md": start,
        "tutorial.md": tutorial(),
        "results/index.md": "# Results\n" + results,
        **{page: text_of(name) for name, page in PAGES.items() if name != "README.md"},
        "extending.md": examples(),
        "formats.md": formats(),
        "commands.md": commands(),
        "objectives-code.md": code_page("Objectives as functions", "objectives", OBJECTIVES_LEAD),
        "judges-code.md": code_page("Judges as code", "judging", JUDGES_LEAD),
        "api.md": api(),
    }
    for name, text in pages.items():
        linked = with_links_of_the_site(text, depth=name.count("/"))
        files.append(File.generated(config, name, content=linked))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Examples, to which pages in docs/ link as files, have a page on the site."""
    return re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](extending.md#\1)", markdown)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def sections() -> dict[str, str]:
    """The parts of README.md by their headings, the first of which is ''."""
    head, *others = re.split(r"^## ", text_of("README.md"), flags=re.MULTILINE)
    return {"": head} | {title: body for title, _, body in (other.partition("\n") for other in others)}


ELSEWHERE = ("", "Why", "Results on real text", "Development")
"""What of README.md is not part of the tutorial."""


def readme_parts() -> tuple[str, str]:
    """The site's first page, and what README.md says of results."""
    parts = sections()
    return f"{parts['']}## Why\n{parts['Why']}", parts["Results on real text"]


def tutorial() -> str:
    parts = sections()
    told = "\n".join(f"## {title}\n{body}" for title, body in parts.items() if title not in ELSEWHERE)
    return f"# Tutorial\n\nFrom your own file of preferences to a report, one command after the other.\n\n{told}"


def with_links_of_the_site(text: str, depth: int) -> str:
    """Links between files of the repository as links between pages; a file without a page is only named."""

    def linked(match: re.Match[str]) -> str:
        words, target, anchor = match["words"], match["target"], match["anchor"] or ""
        up = "../" * depth
        if target in PAGES:
            return f"[{words}]({up}{PAGES[target]}{anchor})"
        if target.startswith("docs/"):
            words = title_of(target) if words == target else words
            return f"[{words}]({up}{target.removeprefix('docs/')}{anchor})"
        if target.startswith("examples/") and (ROOT / target).is_file():
            return f"[{words}]({up}extending.md#{Path(target).stem})"
        return words if "`" in words else f"`{words}`"

    return re.sub(
        r"\[(?P<words>[^\]]*)\]\((?P<target>(?!https?:|#|mailto:)[^)#\s]+)(?P<anchor>#[^)]*)?\)", linked, text
    )


def title_of(name: str) -> str:
    return text_of(name).removeprefix("# ").partition("\n")[0]


def examples() -> str:
    """Each example that plugs something in, with what it says of itself."""
    parts = ["# Plug in your own", EXTENDING_LEAD]
    for path in sorted((ROOT / "examples").glob("*.py")):
        code = path.read_text(encoding="utf-8")
        parts += [
            f"## {path.stem.replace('_', ' ').capitalize()} {{ #{path.stem} }}",
            f"`examples/{path.name}`",
            fenced(code),
        ]
    return "\n\n".join(parts)


def fenced(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def formats() -> str:
    """The table of formats."""
    lines = ["| Name | What a row looks like | Rows are | Needed columns |", "|---|---|---|---|"]
    for name, form in FORMATS.items():
        about = form.about.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{name}` | {about} | {KINDS[form.kind]} | {', '.join(f'`{one}`' for one in form.columns)} |")
    return "\n\n".join(("# Formats of data", FORMATS_LEAD, "\n".join(lines)))


def commands() -> str:
    """What `--help` says of each command. Of those that train by an objective, one stands for all."""
    parts = ["# Commands", COMMANDS_LEAD]
    for words in COMMANDS:
        if words.startswith("train ") and words.split()[1] not in ("sft", "reward", "dpo"):
            continue
        group, _, name = words.rpartition(" ")
        command: click.Command = app(COMMANDS)
        for word in (*group.split(), name):
            assert isinstance(command, click.Group)
            command = command.commands[word]
        shown = click.Context(command, info_name=f"preflab {words}", terminal_width=100, max_content_width=100)
        parts += [f"## {words}", f"```text\n{command.get_help(shown)}\n```"]
    return "\n\n".join(parts)


def code_page(title: str, room: str, lead: str) -> str:
    """The public functions and classes of a room, by its modules."""
    parts = [f"# {title}", lead]
    for path in sorted((SOURCE / room).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        shown = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and ast.get_docstring(node)
        ]
        if shown:
            parts.append(f"## {path.stem.replace('_', ' ').strip().capitalize()} {{ #module-{path.stem} }}")
            parts.append(ast.get_docstring(tree) or "")
            parts += [documented(f"preflab.{room}.{path.stem}.{name}", level=3) for name in shown]
    return "\n\n".join(parts)


def documented(name: str, level: int) -> str:
    return f"::: {name}\n    options:\n      heading_level: {level}"


def api() -> str:
    """What `import preflab` offers, functions first."""
    names = sorted({name for name in dir(preflab) if name[0] != "_"} & public_names())
    functions = [name for name in names if name.islower()]
    classes = [name for name in names if not name.islower()]
    shown = [documented(f"preflab.{name}", level=3) for name in functions]
    rest = [documented(f"preflab.{name}", level=3) for name in classes]
    return "\n\n".join(("# Python", API_LEAD, "## Functions", *shown, "## Settings, results, errors", *rest))


def public_names() -> set[str]:
    """What the package's `__init__` declares for type checkers, which is what it offers."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name
        for node in nodes
        if (node.module or "").startswith("preflab.")
        for alias in node.names
    }


EXTENDING_LEAD = """\
A format, an objective, a scorer, a judge and a study can each come from a file of yours, `file.py:name`, or from an
installed package. [Contributing](CONTRIBUTING.md) says what each takes and gives; these are the examples, which the
tests run."""

FORMATS_LEAD = """\
A format is recognised by its columns, and named with `--format` where rows could be read in two ways; columns under
other names are named with `--columns`. `preflab data inspect FILE` says which it is, and what of it is not used."""

COMMANDS_LEAD = """\
What `preflab COMMAND --help` says. The objectives beside `dpo` have the same settings with hyper-parameters of their
own, which stand in [Objectives](docs/objectives.md)."""

OBJECTIVES_LEAD = "What each computes, and when to use which, is told in [Objectives](docs/objectives.md)."

JUDGES_LEAD = "How to use them is told in [Judging](docs/judging.md)."

API_LEAD = """\
Which objects the functions take, and what can be done with what they return, is told in
[From Python](docs/python.md). `import preflab` alone loads neither torch nor transformers. Mistakes raise
`preflab.UserError` with one sentence, the one that the command line prints."""
