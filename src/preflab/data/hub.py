"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preflab.core.records import UserError
from preflab.data.folders import nearest


def load_from_hub(base: str, name: str, config: str | None, split: str) -> Any:
    import datasets  # takes a second to import

    try:
        return datasets.load_dataset(name, config, split=split)
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # All that can be the user's to mend: no network, no such data set, configuration or split, a gated repository.
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        asked = f"the data set {name} (configuration {config or 'default'}, split {split})"
        raise UserError(
            f"{base}: there is no file or folder of that name, and the Hugging Face hub did not give {asked}: {reason}."
            f" Without a network, give the path of a local copy{nearest(Path(base))}"
        ) from error
