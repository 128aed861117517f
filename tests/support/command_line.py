"""The command line, called in this process."""

from __future__ import annotations

import pytest

from preflab import cli


def preflab(*words: object) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(word) for word in words])
    assert isinstance(caught.value.code, int)
    return caught.value.code
