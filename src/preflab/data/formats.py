"""The formats of preference data: one table of plain functions."""

from __future__ import annotations

from preflab.data.fields import Row
from preflab.data.layout import Format, lists, texts
from preflab.data.parsers import alpaca, demonstrations, pairs, ranked, transcripts, trl


def _whole_conversations(row: Row) -> bool:
    sides = (row["chosen"], row["rejected"])
    return isinstance(row.get("prompt"), str) and all(isinstance(side, list) and len(side) > 1 for side in sides)


FORMATS: dict[str, Format] = {
    "HOMEWORK": Format(
        pairs.homework,
        "ranking",
        "question, response_1 and response_2; overall_response (1 or 2) is the better one",
        ("question", "response_1", "response_2", "overall_response"),
    ),
    "pku-better": Format(
        pairs.pku_better,
        "ranking",
        "PKU-SafeRLHF, ranked by better_response_id (0 or 1)",
        ("prompt", "response_0", "response_1", "better_response_id"),
    ),
    "pku-safer": Format(
        pairs.pku_safer,
        "ranking",
        "PKU-SafeRLHF, ranked by safer_response_id (0 or 1); rows with both ids are read as pku-better unless asked",
        ("prompt", "response_0", "response_1", "safer_response_id"),
        lambda row: "better_response_id" not in row,
    ),
    "hh": Format(
        transcripts.hh,
        "ranking",
        "Anthropic's hh-rlhf: two transcripts that differ in the last assistant turn",
        ("chosen", "rejected"),
        transcripts.is_transcript,
    ),
    "shp": Format(
        pairs.shp,
        "ranking",
        "Stanford Human Preferences: labels is 1 where human_ref_A is preferred",
        ("history", "human_ref_A", "human_ref_B", "labels"),
    ),
    "stack-exchange": Format(
        ranked.stack_exchange,
        "ranking",
        "Stack-Exchange preferences: answers ranked by pm_score",
        ("question", "answers"),
        lists("answers"),
    ),
    "summarize-from-feedback": Format(
        pairs.summarize_from_feedback,
        "ranking",
        "OpenAI's comparisons of two summaries; choice (0 or 1) is the better one",
        ("info", "summaries", "choice"),
    ),
    "trl": Format(
        trl.trl,
        "ranking",
        "TRL's preference type: prompt, chosen and rejected, as text or as chat messages",
        ("prompt", "chosen", "rejected"),
        lambda row: not transcripts.is_transcript(row) and not _whole_conversations(row),
    ),
    "trl-implicit": Format(
        trl.trl_implicit,
        "ranking",
        "TRL's preference type without a prompt: it is what chosen and rejected begin with",
        ("chosen", "rejected"),
        lambda row: (
            not transcripts.is_transcript(row)
            and (texts("chosen", "rejected")(row) or lists("chosen", "rejected")(row))
        ),
    ),
    "rewardbench": Format(
        trl.rewardbench,
        "ranking",
        "RewardBench's results: text_chosen and text_rejected with what a reward model gave them",
        ("text_chosen", "text_rejected", "scores_chosen", "scores_rejected"),
    ),
    "trl-unpaired": Format(
        trl.trl_unpaired,
        "unpaired",
        "TRL's unpaired type: completion, and label says whether it was wanted",
        ("prompt", "completion", "label"),
    ),
    "ultrafeedback": Format(
        trl.trl_implicit,
        "ranking",
        "UltraFeedback, binarised: prompt as text, chosen and rejected as whole conversations",
        ("prompt", "chosen", "rejected"),
        _whole_conversations,
    ),
    "ultrafeedback-raw": Format(
        ranked.ultrafeedback_raw,
        "ranking",
        "UltraFeedback as published: completions ranked by overall_score",
        ("instruction", "completions"),
        lists("completions"),
    ),
    "sharegpt-ranking": Format(
        demonstrations.sharegpt_ranking,
        "ranking",
        "conversations up to the user's turn, chosen and rejected as one message each",
        ("conversations", "chosen", "rejected"),
    ),
    "alpaca-ranking": Format(
        alpaca.alpaca_ranking,
        "ranking",
        "instruction (with input, system, history where there are), chosen and rejected",
        ("instruction", "chosen", "rejected"),
    ),
    "alpaca-ranking-list": Format(
        ranked.alpaca_ranking_list,
        "ranking",
        "instruction, and output as a list of responses, best first",
        ("instruction", "output"),
        lists("output"),
    ),
    "ranked": Format(
        ranked.ranked,
        "ranking",
        "prompt, and responses as a list, best first",
        ("prompt", "responses"),
        lists("responses"),
    ),
    "verdicts": Format(
        pairs.verdicts,
        "ranking",
        "verdict files, of a judge or a person; a sample judged in both orders gives two noisy labels",
        ("prompt", "model_response", "baseline_response", "verdict"),
    ),
    "verdicts-chosen": Format(
        pairs.verdicts,
        "ranking",
        "verdict files whose opponent is the preferred response of preference data",
        ("prompt", "model_response", "chosen_response", "verdict"),
    ),
    "messages": Format(
        demonstrations.chat,
        "demonstration",
        "chat messages of which the last is the response to imitate",
        ("messages",),
        lists("messages"),
    ),
    "sharegpt": Format(
        demonstrations.sharegpt,
        "demonstration",
        "conversations of which the last turn is the response to imitate",
        ("conversations",),
        lists("conversations"),
    ),
    "prompt-response": Format(
        demonstrations.prompt_response,
        "demonstration",
        "prompt and one response, as in demonstrations and in the files that `preflab generate` writes",
        ("prompt", "response"),
    ),
    "prompt-completion": Format(
        demonstrations.prompt_completion,
        "demonstration",
        "TRL's prompt-completion type, as text or as chat messages",
        ("prompt", "completion"),
    ),
    "alpaca": Format(
        alpaca.alpaca,
        "demonstration",
        "instruction (with input, system, history where there are) and output",
        ("instruction", "output"),
        texts("output"),
    ),
    "prompts": Format(
        demonstrations.prompts,
        "prompts",
        "prompts alone, as text or as chat messages, to generate responses to",
        ("prompt",),
    ),
}
