"""What a command made, as a person at a notebook sees it: a few lines, a data frame, a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class Result:
    """Base of what commands return. A notebook shows its text, as the terminal does; `to_pandas` gives its rows."""

    def __repr__(self) -> str:
        return str(self)


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame, a column for every name in them."""
    import pandas as pd  # takes half a second, which the command line does without

    return pd.DataFrame([dict(row) for row in rows])
