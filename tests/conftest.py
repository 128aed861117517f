"""No test touches the user's cache, the network or a tracker."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# What test files share lies in support/, and they do not import each other. Programs that tests start find it too.
SUPPORT = str(Path(__file__).parent / "support")
sys.path.insert(0, SUPPORT)
os.environ["PYTHONPATH"] = os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")])

# Read once, when huggingface_hub is imported: later is too late.
os.environ["HF_HUB_OFFLINE"] = "1"


# What takes long to set up, or needs a browser: who asks for it has the mark.
MARKS = {"open_page": "browser", "sft_root": "slow"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests are marked by the fixtures that they ask for. With `PREFLAB_TEST_ORDER` set to a seed, modules come in a
    random order, and so do the tests of each.
    """
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKS:
                item.add_marker(MARKS[fixture])
    if seed := os.environ.get("PREFLAB_TEST_ORDER"):
        shuffle = random.Random(seed)
        modules: dict[str, list[pytest.Item]] = {}
        for item in items:
            modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
        for module in (order := sorted(modules)):
            shuffle.shuffle(modules[module])
        shuffle.shuffle(order)
        items[:] = [item for module in order for item in modules[module]]


@pytest.fixture(scope="session")
def slow_in_bfloat16() -> str:
    """What the cache says where float32 is the default: else all figures would depend on the processor."""
    import torch  # not before the environment is set

    from preflab.model.precision import kernels

    return json.dumps({kernels(torch.device("cpu")): False})


@pytest.fixture(scope="session", autouse=True)
def _shared_cache(tmp_path_factory: pytest.TempPathFactory, slow_in_bfloat16: str) -> Iterator[None]:
    """For what fixtures of a whole module do before any test of it begins."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "bfloat16.json").write_text(slow_in_bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLAB_CACHE", str(cache))
        yield


@pytest.fixture(autouse=True)
def own_cache(
    _shared_cache: None,
    slow_in_bfloat16: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    (cache / "bfloat16.json").write_text(slow_in_bfloat16)
    monkeypatch.setenv("PREFLAB_CACHE", str(cache))
    return cache


@pytest.fixture(scope="module")
def sft_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model (`tiny`), and an SFT run (`sft`) whose adapter has moved far away from it."""
    import tiny_runs  # which loads torch, and must not come before the environment is set

    folder = tmp_path_factory.mktemp("guards")
    tiny_runs.write_model(folder / "tiny")
    tiny_runs.run("sft", folder / "tiny", folder / "sft", **tiny_runs.LORA, learning_rate=3e-2, max_steps=12)
    return folder
