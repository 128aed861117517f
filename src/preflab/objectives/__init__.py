"""The table of objectives. A new one is a function, a line here, and a row in the property tests."""

from preflab.objectives.pairs import Loss, PairLogps, bradley_terry, dpo

OBJECTIVES = {"dpo": dpo}

__all__ = ["OBJECTIVES", "Loss", "PairLogps", "bradley_terry", "dpo"]
