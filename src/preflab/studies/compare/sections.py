"""The tables and figures of the page, section by section, ready to be set: text only, no HTML but the figures' SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from preflab.page.cells import Cell, Table, estimate
from preflab.page.origins import TITLE, as_run_tables, overlap_remarks
from preflab.page.sections import Bar, Figure, Section, run_tables
from preflab.stats.definitions import STD_SHORT, win_rate_head
from preflab.stats.results import Analysis, Contest, Depth, ModelFigures
from preflab.stats.study import JUDGE_KINDS, Judge, Study
from preflab.stats.wording import NOTHING, SHARES, capital, exact_percent, number, p_value, span
from preflab.studies.compare.figures import ReportFigure, ReportSection

LONGEST_TEXT = 300  # characters of a text in a table


def sections(study: Study, analysis: Analysis, figures: Sequence[ReportFigure]) -> tuple[Section, ...]:
    """The sections before the cases that have something to show, in the order of the page."""
    found = [
        Section("scores", "Scores", (*_scores(study, analysis), *_ends(study)), figures=_figures("scores", figures)),
        Section("lengths", "Lengths", _lengths(study, analysis), figures=_figures("lengths", figures)),
        Section(
            "judges",
            "Judges",
            (*_agreements(analysis), *_paired_tests(analysis), *_depths(analysis)),
            _bars(study, analysis),
            _figures("judges", figures),
            tuple(depth.statement for depth in analysis.depth),
        ),
        Section("diversity", "Diversity and defects", _diversity(analysis), figures=_figures("diversity", figures)),
        Section("subsets", "Subsets", _subsets(study, analysis), figures=_figures("subsets", figures)),
        Section("training", "Training", figures=_figures("training", figures), remarks=overlap_remarks(study)),
        Section("as-run", TITLE, as_run_tables(study.as_run)),
    ]
    return tuple(section for section in found if not section.is_empty)


def _figures(section: ReportSection, figures: Sequence[ReportFigure]) -> tuple[Figure, ...]:
    """The figures of a section: panels without a label stand together; of the others the first is unfolded."""
    ours = [figure for figure in figures if figure.section == section]
    together = tuple(panel for figure in ours if not figure.label for panel in figure.panels)
    labelled = [figure for figure in ours if figure.label]
    folding = (Figure(figure.label, figure.panels, unfolded=number == 0) for number, figure in enumerate(labelled))
    return (*([Figure("", together)] if together else []), *folding)


def _win_rate_head(contests: Iterable[Contest]) -> str:
    return capital(win_rate_head(contest.definition for contest in contests))


def _signed(value: float) -> str:
    return number(value, signed=True)


def _name(contest: Contest) -> Cell:
    return Cell(contest.model, f"against {contest.opponent}")


# ---- scores --------------------------------------------------------------------------------------------------------


def _scores(study: Study, analysis: Analysis) -> tuple[Table, ...]:
    """A table for each judge: a line for the baseline's score, and one for each contest."""
    return tuple(
        _score_table(judge, analysis)
        for judge in study.judges
        if any(contest.judge == judge.name for contest in analysis.contests)
        or any(judge.name in figures.scores for figures in analysis.models)
    )


def _score_table(judge: Judge, analysis: Analysis) -> Table:
    contests = [contest for contest in analysis.contests if contest.judge == judge.name]
    figures = {model.name: model for model in analysis.models}
    score_head = (f"Score, mean ± {STD_SHORT}", "Difference") if judge.is_scorer else ()
    head = (
        "Model",
        *score_head,
        _win_rate_head(contests),
        "Wilson interval",
        "Sign test, p",
        "Win rate at equal lengths",
    )
    alone = [model for model in analysis.models if all(model.name != contest.model for contest in contests)]
    rows = [
        (Cell(model.name), _mean_score(model, judge.name), *[Cell(NOTHING)] * (len(head) - 2))
        for model in alone
        if judge.is_scorer
    ]
    for contest in contests:
        score = (_mean_score(figures[contest.model], judge.name), _difference(contest)) if judge.is_scorer else ()
        rows.append((_name(contest), *score, *_win_rates(contest)))
    notes = {contest.length_controlled_note for contest in contests if contest.length_controlled_note}
    return Table(f"{judge.name} ({JUDGE_KINDS[judge.kind].words})", head, tuple(rows), " ".join(sorted(notes)))


def _mean_score(model: ModelFigures, scorer: str) -> Cell:
    figures = model.scores.get(scorer)
    if figures is None:
        return Cell(NOTHING)
    mean = figures.mean
    return Cell(f"{number(mean.value)} ± {number(figures.std)}", f"mean {span(mean.low, mean.high, number)}")


def _difference(contest: Contest) -> Cell:
    cell = estimate(contest.difference, _signed)
    if contest.difference_std is None:
        return cell
    return Cell(cell.text, f"{cell.detail} · {STD_SHORT} {number(contest.difference_std)}")


def _win_rates(contest: Contest) -> tuple[Cell, ...]:
    wilson = Cell(span(*contest.wilson, exact_percent)) if contest.wilson else Cell(NOTHING)
    return (
        estimate(contest.win_rate, exact_percent, with_n=True),
        wilson,
        Cell(p_value(contest.p_value)),
        estimate(contest.length_controlled, exact_percent),
    )


def _ends(study: Study) -> Iterable[Table]:
    """For each scorer, the response that it scores highest and the one that it scores lowest, to be read."""
    for judge in study.scorers:
        scored = [
            (answer.scores[judge.name], model, case, answer.text)
            for case in study.cases
            for model, answer in case.answers.items()
            if judge.name in answer.scores
        ]
        if not scored:
            continue
        ends = {"Highest": max(scored, key=lambda item: item[0]), "Lowest": min(scored, key=lambda item: item[0])}
        rows = tuple(
            (Cell(end, f"case {case.sample_id}"), Cell(number(score)), Cell(model), *map(_cut, (case.asked, text)))
            for end, (score, model, case, text) in ends.items()
        )
        yield Table(f"What {judge.name} scores highest and lowest", ("", "Score", "Model", "Prompt", "Response"), rows)


def _cut(text: str) -> Cell:
    return Cell(text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…")


# ---- lengths -------------------------------------------------------------------------------------------------------


def _lengths(study: Study, analysis: Analysis) -> tuple[Table, ...]:
    correlations = [f"{judge.name}: length and score" for judge in study.scorers]
    models = tuple(
        (
            Cell(model.name, f"{model.responses} responses"),
            estimate(model.words),
            estimate(model.characters),
            estimate(model.tokens),
            *(_correlation(model, judge.name) for judge in study.scorers),
        )
        for model in analysis.models
    )
    rates = tuple(
        (
            _name(contest),
            Cell(contest.judge),
            estimate(contest.win_rate, exact_percent),
            estimate(contest.longer, exact_percent, with_n=True),
            estimate(contest.shorter, exact_percent, with_n=True),
            estimate(contest.same_length, exact_percent, with_n=True),
            estimate(contest.length_controlled, exact_percent),
        )
        for contest in analysis.contests
    )
    tables = [Table("Length of a response, mean", ("Model", "Words", "Characters", "Tokens", *correlations), models)]
    if rates:
        head = (
            "Model",
            "Judge",
            _win_rate_head(analysis.contests),
            "Where its answer is longer",
            "Where it is shorter",
            "Where it is as long",
            "At equal lengths",
        )
        tables.append(Table("Does the longer answer win?", head, rates))
    return tuple(tables)


def _correlation(model: ModelFigures, scorer: str) -> Cell:
    figures = model.scores.get(scorer)
    if figures is None:
        return Cell(NOTHING)
    return Cell(f"r = {number(figures.length_pearson)}", f"Spearman {number(figures.length_spearman)}")


# ---- judges --------------------------------------------------------------------------------------------------------


def _bars(study: Study, analysis: Analysis) -> Mapping[str, tuple[Bar, ...]]:
    bars = {
        judge.name: tuple(_bar(contest) for contest in analysis.contests if contest.judge == judge.name)
        for judge in study.judges
    }
    return {judge: drawn for judge, drawn in bars.items() if drawn}


def _bar(contest: Contest) -> Bar:
    counts = {"win": contest.wins, "tie": contest.ties, "loss": contest.losses, "error": contest.errors}
    flips = estimate(contest.flip_rate, exact_percent, with_n=True)
    shown = "" if contest.flip_rate is None else f"{flips.text} change the winner with the order ({flips.detail})"
    return Bar(contest.model, contest.opponent, {name: count for name, count in counts.items() if count}, shown)


def _agreements(analysis: Analysis) -> Iterable[Table]:
    if analysis.agreements:
        rows = tuple(
            (
                Cell(f"{pair.first} and {pair.second}"),
                estimate(pair.accuracy, exact_percent, with_n=True),
                estimate(pair.same, exact_percent, with_n=True),
                estimate(pair.kappa),
            )
            for pair in analysis.agreements
        )
        yield Table("Do the judges agree?", ("Judges", "Same winner", "Same of win, tie, loss", "Cohen’s κ"), rows)


def _paired_tests(analysis: Analysis) -> Iterable[Table]:
    if analysis.paired_tests:
        rows = tuple(
            (
                Cell(f"{test.first} and {test.second}", f"both against {test.opponent}"),
                Cell(test.judge),
                Cell(str(test.only_first)),
                Cell(str(test.only_second)),
                Cell(p_value(test.p_value)),
            )
            for test in analysis.paired_tests
        )
        head = ("Models", "Judge", "Only the first wins", "Only the second wins", "McNemar, p")
        yield Table("Is one model ahead of the other?", head, rows)


def _depths(analysis: Analysis) -> Iterable[Table]:
    for depth in analysis.depth:
        yield _depth(depth)


def _depth(depth: Depth) -> Table:
    rows = tuple(
        (
            Cell(model),
            Cell(number(shift, signed=True)),
            estimate(depth.outside.get(model), exact_percent),
        )
        for model, shift in depth.shift.items()
    )
    note = (
        f"On preference data {depth.scorer} ranks {exact_percent(depth.accuracy.value)} of {depth.accuracy.n} pairs as "
        f"people did ({span(depth.accuracy.low, depth.accuracy.high, exact_percent)}); “the longer one is better” "
        f"would reach {exact_percent(depth.length_accuracy)}. Its scores there: {number(depth.mean)} ± "
        f"{number(depth.std)} ({STD_SHORT}), 98\u00a0% of them from {number(depth.low)} to {number(depth.high)}."
    )
    head = ("Model", "Mean score, in standard deviations from preference data", "Scores outside that range")
    return Table(f"Is {depth.scorer} out of its depth?", head, rows, note)


# ---- diversity, subsets --------------------------------------------------------------------------------------------


def _diversity(analysis: Analysis) -> tuple[Table, ...]:
    shares = [share for share in SHARES if any(share in model.shares for model in analysis.models)]
    diversity = tuple(
        (
            Cell(model.name),
            *(Cell(number(model.distinct.get(n))) for n in (1, 2, 3)),
            Cell(exact_percent(model.repetition)),
        )
        for model in analysis.models
    )
    defects = tuple(
        (Cell(model.name), *(estimate(model.shares.get(share), exact_percent) for share in shares))
        for model in analysis.models
    )
    tables = [Table("Diversity", ("Model", "Distinct-1", "Distinct-2", "Distinct-3", "Repetition"), diversity)]
    if shares:
        tables.append(Table("Responses that …", ("Model", *(SHARES[share] for share in shares)), defects))
    return tuple(tables)


def _subsets(study: Study, analysis: Analysis) -> tuple[Table, ...]:
    """A table for each judge, subsets down and contests across."""
    tables = []
    for judge in study.judges:
        contests = [contest for contest in analysis.contests if contest.judge == judge.name and contest.subsets]
        names: Sequence[str] = list(dict.fromkeys(name for contest in contests for name in contest.subsets))
        rows = tuple(
            (Cell(name), *(estimate(contest.subsets.get(name), exact_percent, with_n=True) for contest in contests))
            for name in names
        )
        if rows:
            head = ("Subset", *(f"{contest.model} against {contest.opponent}" for contest in contests))
            tables.append(Table(f"{_win_rate_head(contests)} by subset, {judge.name}", head, rows))
    return tuple(tables)


# ---- how it was made -----------------------------------------------------------------------------------------------


def making(study: Study, manifest: Mapping[str, Any]) -> Section:
    """The last section: who takes part, and how it was run, as far as a manifest tells."""
    return Section("making", "How it was made", (_taking_part(study), _judging(study), *run_tables(manifest)))


def _taking_part(study: Study) -> Table:
    rows = tuple(
        (
            Cell(player.name, "baseline" if player.name == study.baseline else ""),
            Cell(player.source),
            Cell(str(sum(player.name in case.answers for case in study.cases))),
        )
        for player in study.models
    )
    return Table("Models", ("Name", "Source", "Responses"), rows)


def _judging(study: Study) -> Table:
    rows = tuple((Cell(judge.name), Cell(JUDGE_KINDS[judge.kind].words), Cell(judge.source)) for judge in study.judges)
    return Table("Judges", ("Name", "Kind", "Source"), rows or ((Cell("none"), Cell(NOTHING), Cell(NOTHING)),))
