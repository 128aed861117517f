"""Where models lie, and one message for the many ways in which reading them fails."""

from __future__ import annotations

import difflib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from preflab.core.records import UserError
from preflab.model.damage import check_folder, check_gguf

_AT = re.compile(r"(?P<id>\w[\w.-]*(?:/[\w.-]+)?)@(?P<revision>\w[\w./-]*)")


def split_revision(name: str) -> tuple[str, str | None]:
    """`org/model@v2` -> the hub's id and its branch, tag or commit; any other name, and a path that is there, -> itself
    and None.
    """
    found = _AT.fullmatch(name)
    return (found["id"], found["revision"]) if found and not Path(name).exists() else (name, None)


def at_revision(name: str, revision: str | None) -> str:
    """Both in one name, as `split_revision` takes them apart; a local path has no revision."""
    return name if revision is None or Path(name).exists() else f"{split_revision(name)[0]}@{revision}"


def where(name: str) -> str:
    return str(Path(name).parent) if name.endswith(".gguf") else split_revision(name)[0]


def gguf(name: str) -> dict[str, Any]:
    return {"gguf_file": Path(name).name} if name.endswith(".gguf") else {}


def of_revision(name: str, revision: str | None) -> dict[str, str]:
    """The option by which transformers loads a revision, given apart or in the name (`org/model@v2`). Raises UserError
    for a local path, which has none, and for two that differ.
    """
    named = split_revision(name)[1]
    if named and revision not in (None, named):
        raise UserError(f"revision {revision}: the model is named as {name}; give one of the two")
    revision = named or revision
    if revision is None:
        return {}
    if Path(name).exists():
        raise UserError(f"revision {revision}: {name} is a local path; only ids of the hub have revisions")
    return {"revision": revision}


def find_file(name: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a model's folder, or of the hub's, which is downloaded once; None where there is none."""
    if name.endswith(".gguf"):
        return None
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    name, named = split_revision(name)
    found = cached_file(name, file, revision=named or revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def commit_of(name: str, revision: str | None = None) -> str | None:
    """The commit of a hub's model that lies in the cache, where its files are of one; None for all else. Nothing is
    downloaded.
    """
    if Path(name).exists() or " " in name:  # a path, or a model in memory
        return None
    name, named = split_revision(name)
    found = try_to_load_from_cache(name, "config.json", revision=named or revision)
    folder = Path(found).parent if isinstance(found, str) else Path()
    return folder.name if folder.parent.name == "snapshots" else None


@contextmanager
def loading(name: str, what: str) -> Iterator[None]:
    """Turn the many ways in which loading fails into one message."""
    path = Path(name)
    looks_local = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or name.endswith(".gguf")
    if not path.exists() and (looks_local or (path.parent != Path() and path.parent.is_dir())):
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        )
        raise UserError(f"no {what} at {name}" + (f"; did you mean {path.with_name(near[0])}?" if near else ""))
    if name.endswith(".gguf"):
        check_gguf(path)
    elif (path / "config.json").is_file():
        check_folder(path)
    try:
        # A download may take long, so it shows its progress.
        with quiet() if path.exists() else nullcontext():
            yield
    except ImportError as error:
        extra = " (pip install 'preflab[gguf]')" if name.endswith(".gguf") else ""
        raise UserError(f"the {what} {name} needs a package that is not installed{extra}: {error}") from error
    except UserError:
        raise
    except Exception as error:
        # Damaged files make libraries fail in all ways: no kind of error of theirs is a defect of ours.
        if not path.exists() and _is_unreachable(error):
            raise UserError(
                f"no {what} {name}: there is no such folder or file here, and the model hub, which was asked for it "
                "then, cannot be reached"
            ) from error
        found = _in_one_line(error)
        if not isinstance(error, (OSError, ValueError, RuntimeError)):
            found = f"a file of it is damaged, or holds what it should not ({found})"
        hint = "" if path.exists() else " (there is no such folder or file here, so the model hub was asked for it)"
        raise UserError(f"could not load the {what} {name}{hint}: {found}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and reports (of a missing reward head, say): what matters is said by us.

    Nor with its word on a property that PEFT asks for by an old name, which no user can mend.
    """
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*is_gradient_checkpointing.* is deprecated", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether an error comes of a hub that did not answer, or was not to be asked (HF_HUB_OFFLINE)."""
    while error is not None:
        if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _in_one_line(error: BaseException, longest: int = 400) -> str:
    """What a library says, without the pointers to what it prints beside it; its kind where it says little."""
    words = " ".join(str(error).split())
    for pointer in ("Please look at the above report!", "look at the above report!"):
        words = words.replace(pointer, "").strip()
    kind = type(error).__name__
    if not isinstance(error, (OSError, ValueError, RuntimeError)) or not words:
        words = f"{kind}: {words}" if words else kind
    return words if len(words) <= longest else f"{words[:longest].rsplit(' ', 1)[0]} …"
