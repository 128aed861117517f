"""What must not be written: secrets in settings, addresses and messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SECRET_NAME = re.compile(r"(?:^|[_-])(?:token|key|secret|password|passwd|credentials?)$", re.IGNORECASE)
_TOKENIZER_NAMES = {"bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"}

# By the marks that providers put in front of their keys.
_KEY = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[a-z]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|gsk_[A-Za-z0-9]{16,}|nvapi-[\w-]{16,}|glpat-[\w-]{16,}|xai-[A-Za-z0-9]{16,}"
    r"|pplx-[A-Za-z0-9]{16,}|r8_[A-Za-z0-9]{16,})"
)

# A password may hold any character but a slash, `@` too: the last `@` before a slash ends it.
_USER = re.compile(r"(?<=://)[^/\s]*:[^/\s]*(?=@[^/\s@]+)")

_IN_QUERY = re.compile(
    r"(?<=[?&;])((?:[\w.-]*[_.-])?(?:api-?key|key|token|secret|sig|signature|password|passwd|pwd|auth|code|credentials?)"
    r")=[^&;#\s\"']+",
    re.IGNORECASE,
)


def redact(value: Any) -> Any:
    """`value` with secrets blacked out: what is named like a password, key or token, and what looks like one."""
    if isinstance(value, str):
        return _IN_QUERY.sub(r"\1=[redacted]", _USER.sub("[redacted]", _KEY.sub("[redacted]", value)))
    if isinstance(value, Mapping):
        return {name: "[redacted]" if item and _is_secret(str(name)) else redact(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and name not in _TOKENIZER_NAMES
