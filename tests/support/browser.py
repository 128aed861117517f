"""A headless Chromium to drive pages with. A test module that needs it says `pytest_plugins = ("browser",)`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM: str | None = next(filter(None, map(shutil.which, _NAMES)), None)

OpenPage = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def open_page() -> Iterator[OpenPage]:
    """`with open_page(color_scheme="dark", …) as page`: a playwright page of its own, options as for `new_context`.

    An error in the page's own script fails the test. Without a browser, the test is skipped; in CI (`CI=true` in the
    environment), where nobody reads what was skipped, it fails.
    """
    if CHROMIUM is None:
        missing = f"no browser is installed under the names {', '.join(_NAMES)} (make browser installs Debian's)"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        @contextmanager
        def open_one(**options: Any) -> Iterator[Any]:
            errors: list[str] = []
            context = browser.new_context(**options)
            page = context.new_page()
            page.set_default_timeout(5000)
            page.on("pageerror", lambda error: errors.append(str(error)))
            yield page
            context.close()
            assert errors == []

        yield open_one
        browser.close()
