"""The reference's log-probabilities: computed once from the policy as it starts, cached, and checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from preflab.core.records import UserError
from preflab.core.rundir import default_cache_dir, sync
from preflab.core.terminal import progress_bar, say
from preflab.data.batches import Indices
from preflab.model.precision import kernels
from preflab.training.loop import precision_in_use, response_values
from preflab.training.rows import RankedRows


def reference_logps(
    accelerator: Accelerator, policy: nn.Module, rows: RankedRows, batches: Sequence[Indices], weights: str
) -> NDArray[np.float64]:
    """[R] log-probabilities under the policy as it starts; from the cache where the same weights met the same rows
    before, in the same batches, precision and kernels.

    `batches` are those in which the policy will meet the rows first: what is computed together is rounded together, so
    before the first step policy and reference agree to the last bit, in bfloat16 too, where other batches move a sum of
    log-probabilities by tenths of a nat.
    """
    path = default_cache_dir() / "reference" / f"{_key(accelerator, rows, batches, weights)}.npy"
    cached = _read_cache(path, int(rows.offsets[-1]))
    # All processes go the same way: one that computes alone would wait for the others for ever.
    found = accelerator.reduce(torch.tensor(float(cached is not None), device=accelerator.device), reduction="sum")
    if cached is not None and int(found) == accelerator.num_processes:
        return cached
    with progress_bar(disable=not accelerator.is_main_process) as bar:
        task = bar.add_task("reference", total=len(rows.dataset), shown="")
        values = response_values(accelerator, policy, rows, batches, advance=lambda count: bar.advance(task, count))
    if accelerator.is_main_process:
        _write_cache(path, values)
    accelerator.wait_for_everyone()
    return values


def check_reference(accelerator: Accelerator, policy: nn.Module, rows: RankedRows, batches: Sequence[Indices]) -> None:
    """Refuse to train where policy and reference differ before the first step: the loss would not start at ln 2.

    A wrong cache, or weights that are not those the reference was computed with, are silent otherwise. Looks at the
    batches with the longest and the shortest rows, at each response by its own measure.
    """
    half = precision_in_use(accelerator, policy) != "float32"
    relative, absolute = (2e-2, 1e-1) if half else (1e-4, 1e-3)
    training = policy.training
    policy.eval()  # as the reference was computed
    for row in (rows.lengths.argmax(), rows.lengths.argmin()):
        indices = next(batch for batch in batches if row in batch)
        batch, known = rows.batch(indices)
        reference = known.reference
        assert reference is not None
        with torch.no_grad(), accelerator.autocast():
            difference = (policy(batch.to(accelerator.device)).float().cpu() - reference).abs()
        allowed = relative * reference.abs() + absolute
        worst = int((difference / allowed).argmax())  # of which NaN is the greatest
        if not difference[worst] <= allowed[worst]:
            raise UserError(
                f"before the first step a log-probability of the policy differs from the reference's by "
                f"{difference[worst]:.3g} (rounding explains {allowed[worst]:.3g}), so the loss would not start where "
                "policy and reference agree (DPO's would not start at ln 2). The reference is not the model that "
                f"training starts from; if the cache is damaged, remove {default_cache_dir() / 'reference'}"
            )
    policy.train(training)


def _key(accelerator: Accelerator, rows: RankedRows, batches: Sequence[Indices], weights: str) -> str:
    """Changes with all that the values depend on, to the last bit."""
    device = accelerator.device
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    digest = hashlib.sha256(f"{weights} {rows.fingerprint} {accelerator.mixed_precision}".encode())
    digest.update(f" {kernels(device)} {threads}".encode())
    for batch in batches:
        digest.update(b" " + batch.tobytes())
    return digest.hexdigest()[:32]


def _write_cache(path: Path, values: NDArray[np.float64]) -> None:
    """An array as NumPy writes it, and the SHA-256 of that behind it; on disk before it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    array = BytesIO()
    np.save(array, values)
    unfinished.write_bytes(array.getvalue() + hashlib.sha256(array.getvalue()).digest())
    sync(unfinished)
    unfinished.replace(path)


def _read_cache(path: Path, count: int) -> NDArray[np.float64] | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    array, digest = content[:-32], content[-32:]
    if hashlib.sha256(array).digest() != digest:
        say(f"{path}: is not as it was written, so it is damaged; the reference is computed again")
        return None
    values: NDArray[np.float64] = np.load(BytesIO(array), allow_pickle=False)
    return values if values.shape == (count,) and np.isfinite(values).all() else None
