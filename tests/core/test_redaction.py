"""Secrets are known by their name, and by their look wherever they stand."""

from __future__ import annotations

import pytest

from preflab.core.redaction import redact


def test_secrets_are_known_by_name_and_by_look() -> None:
    key, hub = "sk-" + "Ab3" * 10, "hf_" + "Ab3d" * 8
    secret = {"hub_token": "x", "api_key": "y", "nested": [{"password": "z"}], "task-key": 5, "text": f"from {hub}!"}
    plain = {
        "eos_token": "</s>",
        "max_new_tokens": 5,
        "api_key_env": "OPENAI_API_KEY",
        "token": None,
        "name": "hf_small",
    }
    assert redact({**secret, **plain, "url": [f"https://me:pw@host/?q={key}"]}) == {
        "hub_token": "[redacted]",
        "api_key": "[redacted]",
        "nested": [{"password": "[redacted]"}],
        "task-key": "[redacted]",
        "text": "from [redacted]!",
        **plain,
        "url": ["https://[redacted]@host/?q=[redacted]"],
    }


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-" + "aB3_" * 8,
        "gsk_" + "aB3d" * 8,
        "nvapi-" + "aB3-" * 8,
        "glpat-" + "aB3_" * 5,
        "xai-" + "aB3d" * 8,
        "pplx-" + "aB3d" * 8,
        "r8_" + "aB3d" * 8,
    ],
)
def test_keys_of_other_providers(key: str) -> None:
    assert redact(f"judge failed: key {key}.") == "judge failed: key [redacted]."


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("https://:secret@host/v1", "https://[redacted]@host/v1"),
        ("https://me:p@ss:w@rd@host:80/v1", "https://[redacted]@host:80/v1"),
        ("m@https://host/v1?api_key=abc", "m@https://host/v1?api_key=[redacted]"),
        ("https://host/v1?version=2&API-KEY=abc&x=1", "https://host/v1?version=2&API-KEY=[redacted]&x=1"),
        ("https://host/v1?access_token=a.b-c", "https://host/v1?access_token=[redacted]"),
        ("https://host/v1?sig=abc%2F", "https://host/v1?sig=[redacted]"),
    ],
)
def test_secrets_in_addresses(address: str, written: str) -> None:
    assert redact(address) == written


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8000/v1",
        "https://host/v1?tokens=5&keyword=x",
        "https://host/v1?q=me@host:8000",
        "Why? key=5",
        "runs/dpo/model",
        "risk-averse people",
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert redact(text) == text
