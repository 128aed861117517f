"""Judges that are models in this process: a language model that compares, and a reward model that scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from preflab.core.records import Comparison, RowError, UserError
from preflab.core.rundir import fingerprint
from preflab.data.cache import tokenized
from preflab.data.fields import excerpt
from preflab.data.splits import check_rows, template_of
from preflab.data.tokenize import ChatTemplate
from preflab.judging.judges import LanguageJudge, ScoringJudge, reply_cap
from preflab.judging.local import LocalJudge
from preflab.judging.questions import read_question
from preflab.judging.settings import AskingSettings, JudgingSettings, ScoringSettings, narrowed
from preflab.model.load import load_model
from preflab.model.precision import pick_dtype
from preflab.model.responses import check_positions
from preflab.sample.score import check_rewards, precision_of, rewards
from preflab.stats.study import Judge
from preflab.training.stage import fingerprint_weights, make_accelerator


def local_judge(judge: Judge, settings: JudgingSettings, *, seed: int) -> LanguageJudge:
    """A language model, loaded."""
    question, trust = read_question(settings.question), settings.trust_remote_code
    accelerator = make_accelerator()
    template = template_of(
        judge.source, settings.judge_chat_template, settings.judge_chat_template_kwargs, trust_remote_code=trust
    )
    if settings.verdict_from == "first_token" and template.rendering.opens_thought:
        raise UserError(
            f"hf:{judge.source}: its chat template opens a thought, so its first token is none of A and B; turn "
            "thinking off (--judge-chat-template-kwargs enable_thinking=false, where the template has that) or use "
            "verdict_from text"
        )
    dtype = pick_dtype(settings.dtype, accelerator.device, frozen=True)
    model = load_model(judge.source, "policy", dtype=dtype, trust_remote_code=trust).to(accelerator.device).eval()
    temperature = settings.judge_temperature or 0.0
    identity = {
        "model": judge.source,
        "weights": fingerprint_weights(model),
        "template": template.fingerprint,
        **template.stops,
        "temperature": temperature,
        "max_tokens": reply_cap(settings),
        "verdict_from": settings.verdict_from,
        **({"sampling_seed": seed} if temperature else {}),
    }
    backend = LocalJudge(
        model,
        template,
        identity,
        temperature=temperature,
        max_tokens=reply_cap(settings),
        first_token=settings.verdict_from == "first_token",
        batch_size=settings.concurrency,
        seed=seed,
    )
    return LanguageJudge(judge, narrowed(settings, AskingSettings), seed, backend, question)


def reward_judge(judge: Judge, settings: JudgingSettings, *, seed: int) -> ScoringJudge:
    """A reward model, loaded; it scores as `preflab score` does."""
    accelerator = make_accelerator()
    trust = settings.trust_remote_code
    template = template_of(
        judge.source,
        settings.judge_chat_template,
        settings.judge_chat_template_kwargs,
        task="reward",
        trust_remote_code=trust,
    )
    dtype = pick_dtype(settings.dtype, accelerator.device, frozen=True)
    model = load_model(judge.source, "reward", dtype=dtype, trust_remote_code=trust)
    limits = {"max_length": settings.max_length, "max_prompt_length": settings.max_prompt_length}

    def scores(comparisons: Sequence[Comparison]) -> dict[int, float | str]:
        dataset = tokenized(
            comparisons,
            template,
            data_fingerprint=f"{fingerprint(comparisons)} judged",
            max_length=settings.max_length,
            max_prompt_length=settings.max_prompt_length,
        )
        check_rows(model, dataset)
        check_positions(model, dataset.longest, f"lower max_length (now {settings.max_length})")
        values = rewards(accelerator, model, dataset, batch_size=settings.batch_size).tolist() if len(dataset) else []
        numbers = dataset.rows.tolist()
        texts = {item.row: item.responses[0] for item in comparisons}
        check_rewards(judge.source, values, lambda place: f"the response {excerpt(texts[numbers[place]])}")
        found: dict[int, float | str] = dict(zip(numbers, values, strict=True))
        for item in comparisons:
            if item.row not in found:
                found[item.row] = _why_not(item, template, limits)
        return found

    parameters = {"weights": fingerprint_weights(model), "template": template.fingerprint, **limits}
    scorer = replace(judge, precision=precision_of(dtype))
    return ScoringJudge(scorer, narrowed(settings, ScoringSettings), seed, parameters, scores)


def _why_not(comparison: Comparison, template: ChatTemplate, limits: Mapping[str, int]) -> str:
    """Why a response could not be tokenised; asked again, because a tokenised dataset counts reasons, not whose."""
    try:
        template.encode(comparison, **limits)
    except RowError as error:
        return str(error)
    raise AssertionError("a response that can be tokenised has a score")
