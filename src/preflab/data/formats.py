"""The formats of preference data: one table of plain functions."""

from __future__ import annotations

from preflab.data.fields import Row, is_truth
from preflab.data.layout import Format, lists, messages_of, texts, texts_in_lists
from preflab.data.layouts import LAYOUTS
from preflab.data.names import LIST_RANKS, LIST_SCORES
from preflab.data.parsers import alpaca, demonstrations, elsewhere, pairs, ranked, transcripts, trl

_ALPACA = ("input", "context", "history")
_ALPACA_ROLES = {"instruction": "prompt", "input": "prompt", "context": "prompt", "history": "earlier turns"}
_SCORES = dict.fromkeys((*LIST_SCORES, *LIST_RANKS), "scores")


def _whole_conversations(row: Row) -> bool:
    sides = (row["chosen"], row["rejected"])
    whole = all(isinstance(side, list) and len(side) > 1 for side in sides) and not elsewhere.are_lists_of_texts(row)
    return isinstance(row.get("prompt"), str) and whole


FORMATS: dict[str, Format] = {
    "HOMEWORK": Format(
        pairs.homework,
        "ranking",
        "question, response_1 and response_2; overall_response (1 or 2) is the better one",
        ("question", "response_1", "response_2", "overall_response"),
        roles={"question": "prompt", "overall_response": "choice"},
        prompt="question",
        responses=("response_1", "response_2"),
    ),
    "pku-better": Format(
        pairs.pku_better,
        "ranking",
        "PKU-SafeRLHF, ranked by better_response_id (0 or 1)",
        ("prompt", "response_0", "response_1", "better_response_id"),
        roles={"better_response_id": "choice"},
        prompt="prompt",
        responses=("response_0", "response_1"),
    ),
    "pku-safer": Format(
        pairs.pku_safer,
        "ranking",
        "PKU-SafeRLHF, ranked by safer_response_id (0 or 1); rows with both ids are read as pku-better unless asked",
        ("prompt", "response_0", "response_1", "safer_response_id"),
        lambda row: "better_response_id" not in row,
        roles={"safer_response_id": "choice"},
        prompt="prompt",
        responses=("response_0", "response_1"),
    ),
    "hh": Format(
        transcripts.hh,
        "ranking",
        "Anthropic's hh-rlhf: two transcripts that differ in the last assistant turn",
        ("chosen", "rejected"),
        transcripts.is_transcript,
        optional=("prompt",),
        responses=("chosen", "rejected"),
    ),
    "shp": Format(
        pairs.shp,
        "ranking",
        "Stanford Human Preferences: labels is 1 where human_ref_A is preferred",
        ("history", "human_ref_A", "human_ref_B", "labels"),
        roles={"history": "prompt", "human_ref_A": "response", "human_ref_B": "response", "labels": "choice"},
        responses=("human_ref_A", "human_ref_B"),
    ),
    "stack-exchange": Format(
        ranked.stack_exchange,
        "ranking",
        "Stack-Exchange preferences: answers ranked by pm_score",
        ("question", "answers"),
        lists("answers"),
        roles={"question": "prompt", "answers": "responses and scores"},
    ),
    "summarize-from-feedback": Format(
        pairs.summarize_from_feedback,
        "ranking",
        "OpenAI's comparisons of two summaries; choice (0 or 1) is the better one",
        ("info", "summaries", "choice"),
        roles={"info": "prompt", "summaries": "responses"},
    ),
    "trl": Format(
        trl.trl,
        "ranking",
        "TRL's preference type: prompt, chosen and rejected, as text or as chat messages",
        ("prompt", "chosen", "rejected"),
        lambda row: (
            not transcripts.is_transcript(row)
            and not _whole_conversations(row)
            and not elsewhere.are_lists_of_texts(row)
        ),
        prompt="prompt",
        responses=("chosen", "rejected"),
    ),
    "trl-implicit": Format(
        trl.trl_implicit,
        "ranking",
        "TRL's preference type without a prompt: it is what chosen and rejected begin with",
        ("chosen", "rejected"),
        lambda row: (
            not transcripts.is_transcript(row)
            and (texts("chosen", "rejected")(row) or lists("chosen", "rejected")(row))
            and not elsewhere.are_lists_of_texts(row)
        ),
        responses=("chosen", "rejected"),
        guesses=True,
    ),
    "rewardbench": Format(
        trl.rewardbench,
        "ranking",
        "RewardBench's results: text_chosen and text_rejected with what a reward model gave them",
        ("text_chosen", "text_rejected", "scores_chosen", "scores_rejected"),
        roles={"text_chosen": "prompt and chosen", "text_rejected": "rejected"},
    ),
    "trl-unpaired": Format(
        demonstrations.prompt_completion,
        "unpaired",
        "TRL's unpaired type: completion, and label says whether it was wanted",
        ("prompt", "completion", "label"),
        lambda row: is_truth(row["label"]),
        prompt="prompt",
        label="label",
    ),
    "ultrafeedback": Format(
        trl.ultrafeedback,
        "ranking",
        "UltraFeedback, binarised: prompt as text, chosen and rejected as whole conversations",
        ("prompt", "chosen", "rejected"),
        _whole_conversations,
        responses=("chosen", "rejected"),
    ),
    "ultrafeedback-raw": Format(
        ranked.ultrafeedback_raw,
        "ranking",
        "UltraFeedback as published: completions ranked by overall_score",
        ("instruction", "completions"),
        lists("completions"),
        roles={"instruction": "prompt", "completions": "responses and scores"},
    ),
    "sharegpt-ranking": Format(
        demonstrations.sharegpt_ranking,
        "ranking",
        "conversations up to the user's turn, chosen and rejected as one message each",
        ("conversations", "chosen", "rejected"),
        messages_of("chosen", "rejected"),
        roles={"conversations": "prompt"},
        responses=("chosen", "rejected"),
    ),
    "alpaca-ranking": Format(
        alpaca.alpaca_ranking,
        "ranking",
        "instruction (with input, system, history where there are), chosen and rejected",
        ("instruction", "chosen", "rejected"),
        optional=_ALPACA,
        roles=_ALPACA_ROLES,
        responses=("chosen", "rejected"),
    ),
    "alpaca-ranking-list": Format(
        ranked.alpaca_ranking_list,
        "ranking",
        "instruction, and output as a list of responses, by their scores or else best first",
        ("instruction", "output"),
        lists("output"),
        optional=(*_ALPACA, *LIST_SCORES, *LIST_RANKS),
        roles={**_ALPACA_ROLES, **_SCORES, "output": "responses"},
    ),
    "ranked": Format(
        ranked.ranked,
        "ranking",
        "prompt, and responses as a list, by their scores (or ranks) or else best first",
        ("prompt", "responses"),
        texts_in_lists("responses"),
        optional=(*LIST_SCORES, *LIST_RANKS),
        roles=_SCORES,
        prompt="prompt",
        scored="responses",
    ),
    "verdicts": Format(
        pairs.verdicts,
        "ranking",
        "verdict files, of a judge or a person; a sample judged in both orders gives two noisy labels",
        ("prompt", "model_response", "baseline_response", "verdict"),
        roles={"model_response": "response", "baseline_response": "response"},
    ),
    "verdicts-chosen": Format(
        pairs.verdicts,
        "ranking",
        "verdict files whose opponent is the preferred response of preference data",
        ("prompt", "model_response", "chosen_response", "verdict"),
        roles={"model_response": "response", "chosen_response": "response"},
    ),
    "messages": Format(
        demonstrations.chat,
        "demonstration",
        "chat messages of which the last is the response to imitate",
        ("messages",),
        demonstrations.ends_with_answer("messages"),
        roles={"messages": "prompt and response"},
    ),
    "sharegpt": Format(
        demonstrations.sharegpt,
        "demonstration",
        "conversations of which the last turn is the response to imitate",
        ("conversations",),
        demonstrations.ends_with_answer("conversations"),
        conversation="conversations",
        roles={"conversations": "prompt and response"},
    ),
    "prompt-response": Format(
        demonstrations.prompt_response,
        "demonstration",
        "prompt and one response, as in demonstrations and in the files that `preflab generate` writes",
        ("prompt", "response"),
        optional=("meta",),
        prompt="prompt",
        response="response",
    ),
    "prompt-completion": Format(
        demonstrations.prompt_completion,
        "demonstration",
        "TRL's prompt-completion type, as text or as chat messages",
        ("prompt", "completion"),
        prompt="prompt",
    ),
    "alpaca": Format(
        alpaca.alpaca,
        "demonstration",
        "instruction (with input, system, history where there are) and output",
        ("instruction", "output"),
        texts("output"),
        optional=_ALPACA,
        roles={**_ALPACA_ROLES, "output": "response"},
        response="output",
    ),
    "prompts": Format(
        demonstrations.prompts,
        "prompts",
        "prompts alone, as text or as chat messages, to generate responses to",
        ("prompt",),
        prompt="prompt",
    ),
    **LAYOUTS,
}
