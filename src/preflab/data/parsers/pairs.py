"""Public data sets and files with two numbered or named responses, and a column that says which is the better one."""

from __future__ import annotations

from preflab.core.records import Comparison, RowError
from preflab.data.fields import Row, choice, excerpt, present, records, text
from preflab.data.messages import conversation, user


def homework(row: Row) -> Comparison:
    better = choice(row, "overall_response", (1, 2))
    return _numbered(row, "question", better, 3 - better)


def pku_better(row: Row) -> Comparison:
    better = choice(row, "better_response_id", (0, 1))
    return _numbered(row, "prompt", better, 1 - better)


def pku_safer(row: Row) -> Comparison:
    safer = choice(row, "safer_response_id", (0, 1))
    return _numbered(row, "prompt", safer, 1 - safer)


def _numbered(row: Row, prompt: str, better: int, worse: int) -> Comparison:
    """Two responses in numbered columns, kept in meta too under the names `better_response` and `worse_response`."""
    best, worst = text(row, f"response_{better}"), text(row, f"response_{worse}")
    meta = {"better_response": best, "worse_response": worst}
    return Comparison(user(text(row, prompt)), (best, worst), meta=meta)


def shp(row: Row) -> Comparison:
    first_is_better = choice(row, "labels", (0, 1)) == 1
    first, second = text(row, "human_ref_A"), text(row, "human_ref_B")
    return Comparison(user(text(row, "history")), (first, second) if first_is_better else (second, first))


def summarize_from_feedback(row: Row) -> Comparison:
    """OpenAI's comparisons of summaries of Reddit posts or news; the prompt is laid out as in their paper."""
    info, summaries = present(row, "info"), records(row, "summaries")
    if not isinstance(info, dict) or len(summaries) != 2:
        raise RowError("wrong type", f"`info` must be an object and `summaries` two; found {len(summaries)} summaries")
    if info.get("post"):
        post = text(info, "post")
        prompt = f"SUBREDDIT: r/{info.get('subreddit') or ''}\n\nTITLE: {info.get('title') or ''}\n\nPOST: {post}"
    else:
        prompt = f"TITLE: {info.get('title') or ''}\n\nARTICLE: {text(info, 'article')}"
    best = choice(row, "choice", (0, 1))
    # Like the space after a speaker's name, the one after `TL;DR:` belongs to the layout.
    better, worse = (text(summaries[index], "text").removeprefix(" ") for index in (best, 1 - best))
    return Comparison(user(f"{prompt}\n\nTL;DR:"), (better, worse))


def verdicts(row: Row) -> Comparison:
    """A row of a verdict file: what the judge preferred. Ties and errors are no preference."""
    opponent = "chosen_response" if "chosen_response" in row else "baseline_response"
    ours, theirs, verdict = text(row, "model_response"), text(row, opponent), text(row, "verdict")
    best_first = {"model": (ours, theirs), opponent.removesuffix("_response"): (theirs, ours)}
    if verdict.lower() not in best_first:
        raise RowError("no preference", f"`verdict` is {excerpt(verdict)}; it must be {' or '.join(best_first)}")
    return Comparison(conversation(row, "prompt"), best_first[verdict.lower()])
