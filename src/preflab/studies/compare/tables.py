"""A study's tables: files that a person, a spreadsheet or another program reads. All come from its rows and figures.

    dpo_eval_results.json           the last model of the study against the baseline by the first scorer, a row for each
                                    case: {row, sample, prompt, dpo_output, base_output, dpo_score, base_score,
                                    score_diff}. "dpo" is that model and "base" the baseline, whatever they are called.
    model_comparison_results.json   the same two in sum (dpo_score_mean, dpo_score_std, base_score_mean, base_score_std,
                                    score_diff_mean, score_diff_std, win_rate), and every figure of the analysis
    dpo_analysis_results.csv        every figure of the analysis, one in a line, with its interval and n
    dpo_comparison_results.csv      every case: text and scores of all models, verdicts of all judges
    worst_cases.csv                 "loses": where the last model falls furthest behind the baseline; "misranked": pairs
                                    of preference data that a reward model gets most wrong
    cases.md                        the largest gains and losses, and ties, to read
    winrates.md, .csv, .tex         the contests

Texts of models stand in the CSV files as they are, also where they begin with "=" or "+": a program reads back what the
model wrote. Who opens them in a spreadsheet should import them as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preflab.core.origins import trained_on
from preflab.core.rundir import write_json, write_text
from preflab.page.cases import cases_as_markdown, gains, prompt_text
from preflab.page.winrates import csv_text, write_winrates
from preflab.stats.definitions import SHORT, STD, definition_of
from preflab.stats.results import Analysis, Contest, Estimate
from preflab.stats.study import Study, score_difference, verdict

Row = dict[str, Any]

WORST = 10


def write_tables(study: Study, analysis: Analysis, folder: Path) -> None:
    """Write every table that the rows allow into `folder`; one that does not apply is removed, if it is there."""
    evaluation = folder / "dpo_eval_results.json"
    if rows := evaluation_rows(study):
        write_json(evaluation, rows)
    else:
        evaluation.unlink(missing_ok=True)
    leaks = trained_on({**study.as_run.models, **study.as_run.judges})
    write_json(
        folder / "model_comparison_results.json",
        {**summary(study, analysis), **({"trained_on": leaks} if leaks else {}), "analysis": analysis},
    )
    worst = [*lost_cases(study), *misranked_pairs(study)]
    write_text(folder / "dpo_analysis_results.csv", csv_text(list(figure_rows(analysis)), _FIGURE_COLUMNS))
    write_text(folder / "dpo_comparison_results.csv", csv_text(comparison_rows(study)))
    write_text(folder / "worst_cases.csv", csv_text(worst, _WORST_COLUMNS))
    write_text(folder / "cases.md", cases_as_markdown(study))
    write_winrates([contest_row(contest) for contest in analysis.contests], folder)


# ---- the last model against the baseline ---------------------------------------------------------------------------


def evaluation_rows(study: Study) -> list[Row]:
    """The rows of `dpo_eval_results.json`; none where there is no scorer. A score that is not there is null."""
    if not study.scorers:
        return []
    scorer, model = study.scorers[0], study.models[-1].name
    rows = []
    for case in study.cases:
        ours, theirs = case.answers[model], case.answers[study.baseline]
        our_score, their_score = ours.scores.get(scorer.name), theirs.scores.get(scorer.name)
        rows.append(
            {
                "row": case.row,
                "sample": case.sample,
                "prompt": prompt_text(case.prompt),
                "dpo_output": ours.text,
                "base_output": theirs.text,
                "dpo_score": our_score,
                "base_score": their_score,
                "score_diff": score_difference(case, scorer, model, study.baseline),
            }
        )
    return rows


def summary(study: Study, analysis: Analysis) -> Row:
    """Who was compared, and the figures over the rows of `dpo_eval_results.json`."""
    model, base = study.models[-1].name, study.baseline
    found: Row = {"model": model, "baseline": base}
    if not study.scorers:
        return found
    scorer = study.scorers[0].name
    found["scorer"] = scorer
    for side, name in (("dpo", model), ("base", base)):
        scores = next(figures.scores.get(scorer) for figures in analysis.models if figures.name == name)
        if scores:
            found |= {f"{side}_score_mean": scores.mean.value, f"{side}_score_std": scores.std}
    if contest := analysis.contest(scorer, model, base):
        found["score_diff_mean"] = contest.difference.value if contest.difference else None
        found["score_diff_std"] = contest.difference_std
        found["win_rate"] = contest.win_rate.value if contest.win_rate else None
        found["definitions"] = {"win_rate": contest.definition, "score_std": STD, "score_diff_std": STD}
    return found


# ---- every figure --------------------------------------------------------------------------------------------------

_FIGURE_COLUMNS = ("model", "opponent", "judge", "subset", "metric", "value", "low", "high", "n", "definition")


def figure_rows(analysis: Analysis) -> Iterator[Row]:
    """One row for each figure of the analysis that has a value: whose it is, its name, value, interval and n."""
    for figures in analysis.models:
        own = {"model": figures.name}
        yield from _rows(own, words=figures.words, characters=figures.characters, tokens=figures.tokens)
        yield from _rows(own, **{f"distinct_{n}": share for n, share in figures.distinct.items()})
        yield from _rows(own, repetition=figures.repetition, **figures.shares)
        for scorer, scores in figures.scores.items():
            yield from _rows(
                {**own, "judge": scorer},
                score_mean=scores.mean,
                score_std=scores.std,
                length_pearson=scores.length_pearson,
                length_spearman=scores.length_spearman,
            )
    for contest in analysis.contests:
        yield from _contest_figures(contest)
    for test in analysis.paired_tests:
        pair = {"model": f"{test.first} vs {test.second}", "opponent": test.opponent, "judge": test.judge}
        yield from _rows(
            pair, only_first_wins=test.only_first, only_second_wins=test.only_second, mcnemar_p_value=test.p_value
        )
    for pair_of in analysis.agreements:
        judges = {"judge": f"{pair_of.first} vs {pair_of.second}"}
        yield from _rows(judges, agreement=pair_of.accuracy, same_verdict=pair_of.same, cohens_kappa=pair_of.kappa)
    for depth in analysis.depth:
        own = {"judge": depth.scorer}
        yield from _rows(own, accuracy=depth.accuracy, longer_is_better_accuracy=depth.length_accuracy)
        yield from _rows(own, reward_mean=depth.mean, reward_std=depth.std, reward_p1=depth.low, reward_p99=depth.high)
        for model, share in depth.outside.items():
            yield from _rows({**own, "model": model}, outside_familiar_scores=share, shift=depth.shift.get(model))


def _contest_figures(contest: Contest) -> Iterator[Row]:
    own = {"model": contest.model, "opponent": contest.opponent, "judge": contest.judge}
    rated = {**own, "definition": contest.definition}
    counts = {"wins": contest.wins, "ties": contest.ties, "losses": contest.losses, "errors": contest.errors}
    yield from _rows(own, **counts)
    if contest.win_rate and contest.wilson:
        wilson = Estimate(contest.win_rate.value, *contest.wilson, contest.win_rate.n)
        yield from _rows(rated, win_rate=contest.win_rate, win_rate_wilson=wilson)
    lengths = {"longer": contest.longer, "shorter": contest.shorter, "same_length": contest.same_length}
    yield from _rows(rated, **{f"win_rate_{name}": rate for name, rate in lengths.items()})
    yield from _rows(
        own,
        sign_test_p_value=contest.p_value,
        length_controlled_win_rate=contest.length_controlled,
        flip_rate=contest.flip_rate,
        score_diff_mean=contest.difference,
        score_diff_std=contest.difference_std,
    )
    for subset, rate in contest.subsets.items():
        yield from _rows({**rated, "subset": subset}, win_rate=rate)
    for longer_by, rate in contest.by_length.items():
        yield from _rows({**rated, "subset": f"{longer_by} words"}, win_rate_by_length=rate)


def _rows(whose: Mapping[str, str], **metrics: Estimate | float | None) -> Iterator[Row]:
    for metric, value in metrics.items():
        says = {"definition": found} if (found := definition_of(metric)) else {}
        if isinstance(value, Estimate):
            yield {
                **whose,
                "metric": metric,
                "value": value.value,
                "low": value.low,
                "high": value.high,
                "n": value.n,
            } | says
        elif value is not None:
            yield {**whose, "metric": metric, "value": value} | says


def contest_row(contest: Contest) -> Row:
    """A contest as a line of `winrates.csv`."""
    return {
        "judge": contest.judge,
        "model": contest.model,
        "opponent": contest.opponent,
        "wins": contest.wins,
        "ties": contest.ties,
        "losses": contest.losses,
        "errors": contest.errors,
        "win_rate": contest.win_rate,
        "definition": SHORT[contest.definition],
        "length_controlled": contest.length_controlled,
        "p_value": contest.p_value,
    }


# ---- cases ---------------------------------------------------------------------------------------------------------


def comparison_rows(study: Study) -> list[Row]:
    """Every case with all texts, scores and verdicts, in the columns MODEL_output, MODEL_SCORER_score and
    MODEL_JUDGE_verdict (against the baseline).
    """
    rows = []
    for case in study.cases:
        row: Row = {"row": case.row, "sample": case.sample, "subset": case.subset, "prompt": prompt_text(case.prompt)}
        row |= {f"{player.name}_output": case.answers[player.name].text for player in study.models}
        for scorer in study.scorers:
            for player in study.models:
                row[f"{player.name}_{scorer.name}_score"] = case.answers[player.name].scores.get(scorer.name)
        for judge in study.judges:
            for player in study.models[1:]:
                found = verdict(case, judge, player.name, study.baseline, study.baseline)
                row[f"{player.name}_{judge.name}_verdict"] = found.outcome if found else None
        rows.append(row)
    return rows


_WORST_COLUMNS = (
    *("kind", "judge", "row", "sample", "prompt", "response", "other_response"),
    *("score", "other_score", "difference"),
)


def lost_cases(study: Study) -> list[Row]:
    """Where the last model falls furthest behind the baseline, by the study's first scorer, or else its first judge."""
    model = study.models[-1].name
    judge, ranked = gains(study, model)
    rows = []
    for gain, case in ranked[::-1][:WORST]:
        if judge is not None and gain < 0:
            ours, theirs = case.answers[model], case.answers[study.baseline]
            scores = {"score": ours.scores.get(judge.name), "other_score": theirs.scores.get(judge.name)}
            place = {"kind": "loses", "judge": judge.name, "row": case.row, "sample": case.sample}
            texts = {"prompt": prompt_text(case.prompt), "response": ours.text, "other_response": theirs.text}
            rows.append({**place, **texts, **scores, "difference": gain})
    return rows


def misranked_pairs(study: Study) -> list[Row]:
    """Pairs of preference data whose rejected response a scorer puts highest above the chosen one."""
    rows = []
    for scorer in (judge.name for judge in study.scorers):
        pairs = study.preference_data.get(scorer, ())
        wrong = [pair for pair in pairs if pair.score_chosen < pair.score_rejected]
        for pair in sorted(wrong, key=lambda pair: pair.score_chosen - pair.score_rejected)[:WORST]:
            place = {"kind": "misranked", "judge": scorer, "row": pair.row, "prompt": prompt_text(pair.prompt)}
            scores = {"score": pair.score_chosen, "other_score": pair.score_rejected}
            texts = {"response": pair.chosen, "other_response": pair.rejected}
            rows.append({**place, **texts, **scores, "difference": pair.score_chosen - pair.score_rejected})
    return rows
