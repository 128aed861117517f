"""preflab's side of the benchmark: its own loop over pairs of one file, in this process. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator
from measure import peak_memory_gb, synchronize
from torch.utils.flop_counter import FlopCounterMode

from preflab.data.batches import plan_evaluation, plan_training
from preflab.data.cache import tokenized
from preflab.data.comparisons import choose_formats, read_comparisons
from preflab.data.sources import open_source
from preflab.data.templates import apply_named_template
from preflab.data.tokenize import ChatTemplate
from preflab.model.load import load_model
from preflab.model.responses import ResponseLogps, ResponseRewards, collator
from preflab.model.tokenizers import load_tokenizer, pad_apart_from
from preflab.objectives import dpo
from preflab.training.loop import response_values, train
from preflab.training.rows import RankedRows
from preflab.training.steps import means, pair_step, reward_step


def main() -> None:
    cli = argparse.ArgumentParser()
    cli.add_argument("kind", choices=["dpo", "reward"])
    cli.add_argument("model")
    cli.add_argument("pairs")
    cli.add_argument("--batch", type=int, required=True)
    cli.add_argument("--steps", type=int, required=True)
    cli.add_argument("--max-length", type=int, required=True)
    args = cli.parse_args()

    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision="no")
    tokenizer = load_tokenizer(args.model)
    apply_named_template(tokenizer, "human-assistant")
    template = ChatTemplate(tokenizer)
    source = open_source(f"{args.pairs}[:{args.batch * args.steps}]")
    # TRL's side trains in bfloat16 weights on a GPU, so this side does too.
    model = load_model(
        args.model,
        "policy" if args.kind == "dpo" else "reward",
        dtype=torch.bfloat16 if gpu else torch.float32,
        fresh_head=True,
    )
    if args.kind == "reward":
        pad_apart_from(template.stop_ids, tokenizer, model)
    module = ResponseLogps(model) if args.kind == "dpo" else ResponseRewards(model)
    with TemporaryDirectory() as cache:
        dataset = tokenized(
            read_comparisons(source, choose_formats(source)),
            template,
            data_fingerprint="benchmark",
            max_length=args.max_length,
            max_prompt_length=args.max_length,
            cache_dir=Path(cache),
        )
        rows = RankedRows(dataset, collator(module.share_prefix))
        print(json.dumps({"kind": args.kind, "pairs": len(dataset), **_timed(accelerator, module, rows, args)}))


def _timed(
    accelerator: Accelerator, module: torch.nn.Module, rows: RankedRows, args: argparse.Namespace
) -> dict[str, object]:
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6, fused=True)
    module, optimizer = accelerator.prepare(module, optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    plan = plan_training(
        rows.lengths, epochs=1, max_steps=-1, batch_size=args.batch, max_tokens=None, passes=1, seed=0
    ).steps
    step_fn = partial(pair_step, objective=partial(dpo, beta=0.1)) if args.kind == "dpo" else reward_step

    started = time.perf_counter()
    if args.kind == "dpo":
        # Part of the bill: TRL computes the reference's log-probabilities inside its steps.
        evaluation = plan_evaluation(rows.lengths, batch_size=args.batch, max_tokens=None)
        rows.reference = response_values(accelerator, module, rows, evaluation)
    synchronize()
    reference = time.perf_counter() - started
    steps, losses = [], []
    clock = time.perf_counter()
    for report in train(accelerator, module, optimizer, schedule, rows, plan, lambda _: step_fn, max_grad_norm=1.0):
        synchronize()
        steps.append(time.perf_counter() - clock)
        losses.append(means(report.totals)["loss"])
        clock = time.perf_counter()
    memory = peak_memory_gb()
    with FlopCounterMode(display=False) as counter:
        if args.kind == "dpo":
            response_values(accelerator, module, rows, evaluation)
        for _ in train(accelerator, module, optimizer, schedule, rows, plan, lambda _: step_fn, max_grad_norm=1.0):
            pass
    return {
        "seconds": reference + sum(steps),
        "reference_seconds": reference,
        "step_seconds": steps,
        "peak_memory_gb": memory,
        "losses": losses,
        "flops": counter.get_total_flops(),
    }


if __name__ == "__main__":
    main()
