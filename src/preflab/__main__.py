"""`python -m preflab`, and so `accelerate launch -m preflab train dpo …`."""

from __future__ import annotations

from preflab.cli import main

main()
