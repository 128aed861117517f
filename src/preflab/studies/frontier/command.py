"""A frontier: many policies of one reference, what they gain by the truth and by a reward model, and at which KL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import nn

from preflab.core.config import dump_settings, shared_values
from preflab.core.file_format import with_format
from preflab.core.origins import trained_on
from preflab.core.output import alone_with, explaining_memory, finish_output, open_output
from preflab.core.records import Completion, UserError, messages_to_json
from preflab.core.rundir import (
    digest_file,
    fingerprint,
    read_jsonl,
    stage_state,
    write_json,
    write_jsonl,
    write_manifest,
)
from preflab.core.terminal import progress_bar, say
from preflab.core.ties import is_score
from preflab.data.fields import excerpt
from preflab.data.splits import template_of
from preflab.data.tokenize import ChatTemplate
from preflab.judging.origins import origin_of
from preflab.judging.players import Entry, read_entries
from preflab.model.adapters import Task, adapter_base
from preflab.model.load import load_model
from preflab.model.precision import pick_dtype
from preflab.model.responses import Model, ResponseRewards
from preflab.model.snapshots import final_model
from preflab.rewards.scorers import find_scorer
from preflab.sample.generate import read_prompts
from preflab.sample.reward_model import check_rewards
from preflab.sample.rollouts import divergences, proxy_rewards, sample_responses
from preflab.sample.sampling import Prompt
from preflab.sample.settings import GenerateSettings
from preflab.sandbox.gold import read_prompt
from preflab.studies.frontier.report import FrontierResult, report_frontier
from preflab.studies.frontier.rows import HEAD, best_of_measures, lowest_proxy, policy_measures
from preflab.studies.frontier.settings import FrontierSettings, RolloutSettings
from preflab.training.as_run import model_of
from preflab.training.stage import fingerprint_weights, make_accelerator

Row = dict[str, Any]


def measure_frontier(settings: FrontierSettings) -> FrontierResult:
    """Sample every policy and the reference, take KL, gold and proxy of each response, then say what follows. The
    folder is described at `preflab.studies.frontier.rows`.
    """
    entries = _policies(settings.models)
    trained = _trained(entries)
    folder = settings.out
    with alone_with(folder / HEAD):
        bench = _bench(settings)
        _keep_prompts(folder, bench.prompts, settings)
        reference = _reference_rows(bench, settings)
        with progress_bar() as bar:
            task = bar.add_task("policies", total=len(entries), shown="")
            for entry in entries:
                _measure(bench, entry, settings)
                bar.update(task, advance=1, shown=entry.name)
        write_json(folder / HEAD, with_format(_head(settings, trained, bench.prompts, reference)))
        dump_settings(settings, folder / "config.yaml")
        write_manifest(
            folder, command="frontier", settings=settings.model_dump(mode="json"), seed=settings.seed, data={}
        )
    return report_frontier(folder)


# ---- what is loaded once ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scores:
    """Who scores responses, a reward model or a function.

    Attributes:
        of: responses -> their scores, None where there is none.
        load: brings a model in, to find out early whether it is one.
    """

    fingerprint: str
    of: Callable[[Sequence[Completion]], list[float | None]]
    load: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class _Bench:
    """What all policies are measured with; models are loaded when they are needed.

    `gold` is None where nobody knows the truth.
    """

    template: ChatTemplate
    prompts: list[Prompt]
    reference: Callable[[], Model]
    proxy: _Scores
    gold: _Scores | None
    device: torch.device
    fingerprints: Mapping[str, str]


def _bench(settings: FrontierSettings) -> _Bench:
    accelerator = make_accelerator()
    if accelerator.num_processes > 1:
        raise UserError("a frontier is measured by one process: run preflab frontier without a launcher")
    reference, device = model_of(settings.reference), accelerator.device
    trust = settings.trust_remote_code
    template = template_of(reference, settings.chat_template, settings.chat_template_kwargs, trust_remote_code=trust)
    proxy = _scores(settings.reward_model, settings, device)
    prompts = _prompts(settings, template)
    load_reference = cache(partial(_load, reference, "policy", settings, device))
    gold = settings.gold or ("gold" if all(read_prompt(prompt.messages[-1].content) for prompt in prompts) else None)
    if not gold:
        say(
            "not all prompts are the sandbox's, so there is no gold reward (--gold can name one): only the reward "
            "model's score is measured"
        )
    truth = _scores(gold, settings, device) if gold else None
    own_gold = {"gold": truth.fingerprint} if truth and settings.gold else {}
    return _Bench(
        template=template,
        prompts=prompts,
        reference=load_reference,
        proxy=proxy,
        gold=truth,
        device=device,
        fingerprints={
            "prompts": fingerprint([(prompt.row, prompt.ids) for prompt in prompts]),
            "template": template.fingerprint,
            "reference": _fingerprint(reference, pick_dtype(settings.dtype, device, frozen=False), load_reference),
            "reward_model": proxy.fingerprint,
            **own_gold,
        },
    )


def _scores(spec: str, settings: FrontierSettings, device: torch.device) -> _Scores:
    """A function that scores, or a reward model."""
    scorer, batch_size = find_scorer(spec), settings.batch_size
    if scorer is None:
        return _model_scores(spec, settings, device)

    def of(found: Sequence[Completion]) -> list[float | None]:
        prompts, responses = [each.prompt for each in found], [each.response for each in found]
        values = scorer.scores(prompts, responses, batch_size=batch_size)
        return [None if isinstance(value, str) else value for value in values]

    return _Scores(scorer.fingerprint, of)


def _model_scores(spec: str, settings: FrontierSettings, device: torch.device) -> _Scores:
    name = model_of(spec)
    template = template_of(
        name, settings.chat_template, {}, task="reward", trust_remote_code=settings.trust_remote_code
    )
    load = cache(partial(_load, name, "reward", settings, torch.device("cpu")))

    def of(found: Sequence[Completion]) -> list[float | None]:
        reward = nn.Module.to(load(), device)
        values = proxy_rewards(ResponseRewards(reward), template, found, batch_size=settings.batch_size)
        scored = [place for place, value in enumerate(values) if value is not None]
        check_rewards(
            spec,
            [value for value in values if value is not None],
            lambda place: f"the response {excerpt(found[scored[place]].response)}",
        )
        nn.Module.to(reward, "cpu")  # else three models would stand on the device while the next policy is measured
        return values

    return _Scores(_fingerprint(name, pick_dtype(settings.dtype, device, frozen=False), load), of, load)


def _load(name: str, task: Task, settings: FrontierSettings, device: torch.device) -> Model:
    dtype = pick_dtype(settings.dtype, device, frozen=False)
    model = load_model(name, task, dtype=dtype, trust_remote_code=settings.trust_remote_code)
    return nn.Module.to(model, device).eval()


def _fingerprint(name: str, dtype: torch.dtype, load: Callable[[], Model]) -> str:
    """What a model is: of a folder with all its weights by its files, so that what is measured already need not be
    loaded; of all else by the weights.
    """
    if not Path(name).is_dir() or adapter_base(name) or final_model(name):
        return fingerprint_weights(load())
    files = sorted(path for kind in ("config.json", "*.safetensors", "*.bin") for path in Path(name).glob(kind))
    return fingerprint([str(dtype), *((path.name, digest_file(path)) for path in files)])


def _prompts(settings: FrontierSettings, template: ChatTemplate) -> list[Prompt]:
    """Each prompt once; those that cannot be used are told."""
    asked = GenerateSettings(model=settings.reference, **shared_values(settings, GenerateSettings))
    prompts, dropped, _ = read_prompts(asked, template, tell=True)
    for item in dropped:
        say(f"not asked: {item}")
    return list({prompt.ids: prompt for prompt in reversed(prompts)}.values())[::-1]


def _keep_prompts(folder: Path, prompts: Sequence[Prompt], settings: FrontierSettings) -> None:
    rows = [{"row": prompt.row, "prompt": messages_to_json(prompt.messages)} for prompt in prompts]
    path = folder / "prompts.jsonl"
    if not settings.overwrite and path.exists() and list(read_jsonl(path)) != rows:
        raise UserError(f"{folder}: holds a frontier of other prompts; choose another folder, or overwrite it")
    write_jsonl(path, rows)


# ---- who takes part --------------------------------------------------------------------------------------------------


def _policies(words: Sequence[str]) -> tuple[Entry, ...]:
    entries = read_entries(words)
    for entry in entries:
        if entry.kind != "model":
            raise UserError(f"{entry.source}: a frontier samples from models; name folders of training runs")
    return entries


def _trained(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Objective, seed, and those settings besides in which policies of one objective differ, from `stage.json`.

    Raises UserError where two do not differ: they would pass for one policy that was trained twice.
    """
    found: list[dict[str, Any]] = []
    for entry in entries:
        stage = stage_state(Path(entry.source).parent) if Path(entry.source).is_dir() else None
        inputs = {} if stage is None else stage.inputs
        command, given = str(inputs.get("command")), inputs.get("settings")
        trained = command.startswith("train ") and isinstance(given, dict)
        values: Mapping[str, Any] = given if trained and given else {}
        found.append({
            "name": entry.name,
            "source": entry.source,
            "objective": command.removeprefix("train ") if trained else entry.name,
            "seed": values.get("seed"),
            "settings": {name: values[name] for name in values if name != "seed"},
        })  # fmt: skip
    for objective in dict.fromkeys(policy["objective"] for policy in found):
        group = [policy for policy in found if policy["objective"] == objective]
        first = group[0]["settings"]
        names = dict.fromkeys(name for policy in group for name in policy["settings"])
        varied = [name for name in names if any(policy["settings"].get(name) != first.get(name) for policy in group)]
        for policy in group:
            policy["settings"] = {name: policy["settings"].get(name) for name in varied}
        for one, other in combinations(group, 2):
            if (one["settings"], one["seed"]) == (other["settings"], other["seed"]):
                raise UserError(
                    f"{one['name']} and {other['name']} were trained alike: {objective} with equal settings and seed "
                    f"{one['seed']}; leave one of them out"
                )
    return found


def _head(
    settings: FrontierSettings,
    trained: Sequence[Mapping[str, Any]],
    prompts: Sequence[Prompt],
    reference: Sequence[Row],
) -> dict[str, Any]:
    """What `frontier.json` says, every figure taken from rows."""
    rows, lowest = [prompt.row for prompt in prompts], lowest_proxy(reference)

    def figures(name: str) -> dict[str, float | int]:
        responses = list(read_jsonl(settings.out / "responses" / f"{name}.jsonl"))
        return policy_measures(responses, rows, samples=settings.num_return_sequences, lowest=lowest).figures()

    asked = [prompt.messages for prompt in prompts]
    models = {policy["name"]: policy["source"] for policy in trained}
    models |= {"the reference": model_of(settings.reference)}
    if find_scorer(settings.reward_model) is None:
        models |= {"the reward model": model_of(settings.reward_model)}
    return {
        "reference": settings.reference,
        "reward_model": settings.reward_model,
        **({"gold": settings.gold} if settings.gold else {}),
        "samples": settings.num_return_sequences,
        "policies": [{**policy, **figures(policy["name"])} for policy in trained],
        "best_of_n": [
            {"of": n, **best_of_measures(reference, rows, n, lowest=lowest).figures()} for n in _sizes(settings)
        ],
        "trained_on": trained_on({name: origin_of("model", source, asked) for name, source in models.items()}),
    }


def _sizes(settings: FrontierSettings) -> list[int]:
    return [1, *sorted(set(settings.best_of_n))]


# ---- responses -------------------------------------------------------------------------------------------------------


def _measure(bench: _Bench, entry: Entry, settings: FrontierSettings) -> None:
    """A policy's responses with KL, gold and proxy, unless they are there."""
    load = partial(_load, entry.source, "policy", settings, bench.device)
    output = settings.out / "responses" / f"{entry.name}.jsonl"
    wanted = RolloutSettings(**shared_values(settings, RolloutSettings))
    dtype = pick_dtype(settings.dtype, bench.device, frozen=False)
    made_from = {**bench.fingerprints, "policy": _fingerprint(entry.source, dtype, load)}
    state = open_output(output, "frontier", wanted, made_from, seed=settings.seed, overwrite=settings.overwrite)
    if state == "done":
        return
    template = template_of(
        entry.source,
        settings.chat_template,
        settings.chat_template_kwargs,
        trust_remote_code=settings.trust_remote_code,
    )
    if template.fingerprint != bench.template.fingerprint:
        raise UserError(
            f"{entry.source}: its tokenizer or chat template is not the reference's ({settings.reference}), so there "
            "is no KL between the two"
        )
    with explaining_memory(settings.batch_size):
        found, kls = _sample_with_kl(bench, load(), settings)
        if strange := sum(not is_score(kl) for kl in kls):
            raise UserError(
                f"{entry.source}: {strange} of {len(kls)} responses have no finite KL from the reference: its weights "
                "are damaged or its training has diverged; leave it out, or train it anew"
            )
        rows = _rows(bench, found, settings)
    finish_output(output, [{**row, "kl": kl} for row, kl in zip(rows, kls, strict=True)])


def _reference_rows(bench: _Bench, settings: FrontierSettings) -> list[Row]:
    """The reference's responses, as many as the largest n of best-of-n; of them KL is zero."""
    samples = max(_sizes(settings))
    output = settings.out / "reference.jsonl"
    values = shared_values(settings, RolloutSettings) | {"num_return_sequences": samples}
    state = open_output(
        output,
        "frontier",
        RolloutSettings(**values),
        bench.fingerprints,
        seed=settings.seed,
        overwrite=settings.overwrite,
    )
    if state != "done":
        bench.proxy.load()  # before all that is sampled: it may not be a reward model
        with explaining_memory(settings.batch_size):
            finish_output(output, _rows(bench, _sample(bench, bench.reference(), settings, samples), settings))
    return list(read_jsonl(output))


def _sample_with_kl(bench: _Bench, policy: Model, settings: FrontierSettings) -> tuple[list[Completion], list[float]]:
    """Apart, so that the policy is let go of before the reward model comes to the device."""
    found = _sample(bench, policy, settings, settings.num_return_sequences)
    kls = divergences(policy, bench.reference(), bench.template, bench.prompts, found, batch_size=settings.batch_size)
    return found, kls


def _sample(bench: _Bench, policy: Model, settings: FrontierSettings, samples: int) -> list[Completion]:
    return sample_responses(
        policy,
        bench.template,
        bench.prompts,
        samples=samples,
        cap=settings.max_new_tokens,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )


def _rows(bench: _Bench, found: Sequence[Completion], settings: FrontierSettings) -> list[Row]:
    proxies = bench.proxy.of(found)
    golds = bench.gold.of(found) if bench.gold else [None] * len(found)
    if bench.gold and (place := next((n for n, gold in enumerate(golds) if gold is None), None)) is not None:
        text = excerpt(found[place].response)
        raise UserError(f"gold: {settings.gold} gives no finite score to the response {text}; every one needs it")
    return [
        {
            "row": completion.row,
            "sample": completion.sample,
            "response": completion.response,
            "tokens": completion.tokens,
            "finish": completion.finish,
            "kl": 0.0,
            "gold": gold,
            "proxy": proxy,
        }
        for completion, gold, proxy in zip(found, golds, proxies, strict=True)
    ]
