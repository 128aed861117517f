"""preflab: from a file of human preferences to an aligned language model, and to the evidence that it got better."""

from __future__ import annotations

from preflab.api import compare as compare
from preflab.api import frontier as frontier
from preflab.api import generate as generate
from preflab.api import grid as grid
from preflab.api import inspect as inspect
from preflab.api import judge as judge
from preflab.api import merge as merge
from preflab.api import report as report
from preflab.api import run as run
from preflab.api import score as score
from preflab.api import train as train
from preflab.api import winrate as winrate
from preflab.api import write_sandbox as write_sandbox
from preflab.core.records import DisagreementError as DisagreementError
from preflab.core.records import UserError as UserError

__version__ = "0.1.0"
