"""A row of each format, with the prompt and the responses that are to be read from it."""

from __future__ import annotations

from typing import Any

from places import SHARED

from preflab.core.records import Message

Row = dict[str, Any]
REAL_PAIRS = SHARED / "data" / "hh-harmless-2000.jsonl.gz"

Q, BETTER, WORSE = "Why is the sky blue?", "Rayleigh scattering.", "No idea, sorry."
ASKED = (Message("user", Q),)
DIALOGUE = (Message("user", "Hello"), Message("assistant", "Hi!"), Message("user", Q))
SYSTEM = Message("system", "Be brief.")
ONE_TURN = {"role": "user", "content": Q}
MESSAGES = [{"role": message.role, "content": message.content} for message in DIALOGUE]
SHAREGPT = [
    {"from": "human", "value": "Hello"},
    {"from": "gpt", "value": "Hi!"},
    {"from": "human", "value": Q},
]
TRANSCRIPT = f"\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: {Q}\n\nAssistant:"


def said(content: str) -> Row:
    return {"role": "assistant", "content": content}


# Format, row, prompt, responses. The name is also the one that must be detected, unless it ends in a remark.
GOLDEN: dict[str, tuple[Row, tuple[Message, ...], tuple[str, ...]]] = {
    "HOMEWORK": (
        {"question": Q, "response_1": WORSE, "response_2": BETTER, "overall_response": 2},
        ASKED,
        (BETTER, WORSE),
    ),
    "HOMEWORK (first, from CSV)": (
        {"question": Q, "response_1": BETTER, "response_2": WORSE, "overall_response": "1"},
        ASKED,
        (BETTER, WORSE),
    ),
    "pku-better": (
        {
            "prompt": Q,
            "response_0": WORSE,
            "response_1": BETTER,
            "better_response_id": 1,
            "safer_response_id": 0,
            "is_response_0_safe": True,
            "is_response_1_safe": False,
        },
        ASKED,
        (BETTER, WORSE),
    ),
    "pku-better (first)": (
        {"prompt": Q, "response_0": BETTER, "response_1": WORSE, "better_response_id": 0},
        ASKED,
        (BETTER, WORSE),
    ),
    "pku-safer": (
        {"prompt": Q, "response_0": BETTER, "response_1": WORSE, "safer_response_id": 0},
        ASKED,
        (BETTER, WORSE),
    ),
    "hh": ({"chosen": f"{TRANSCRIPT} {BETTER}", "rejected": f"{TRANSCRIPT} {WORSE}"}, DIALOGUE, (BETTER, WORSE)),
    "hh (blank lines stripped)": (
        {"chosen": f"{TRANSCRIPT} {BETTER}".strip(), "rejected": f"{TRANSCRIPT} {WORSE}".strip()},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "hh (prompt apart)": (
        {"prompt": TRANSCRIPT, "response": f" {BETTER}", "chosen": f" {BETTER}", "rejected": f" {WORSE}"},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "hh (question repeated)": (
        {"prompt": Q, "chosen": f"{TRANSCRIPT} {BETTER}", "rejected": f"{TRANSCRIPT} {WORSE}"},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "shp": ({"history": Q, "human_ref_A": BETTER, "human_ref_B": WORSE, "labels": 1}, ASKED, (BETTER, WORSE)),
    "shp (second)": ({"history": Q, "human_ref_A": WORSE, "human_ref_B": BETTER, "labels": 0}, ASKED, (BETTER, WORSE)),
    "stack-exchange": (
        {
            "qid": 7,
            "question": Q,
            "answers": [
                {"text": "third", "pm_score": 0, "answer_id": 1},
                {"text": "first", "pm_score": 9, "answer_id": 2},
                {"text": "second", "pm_score": 3, "answer_id": 3},
                {"text": "as good as the second", "pm_score": 3, "answer_id": 4},
            ],
        },
        ASKED,
        ("first", "second", "third"),
    ),
    "summarize-from-feedback": (
        {
            "info": {"id": "t3", "post": "My sky is blue.", "title": "Help", "subreddit": "sky", "article": None},
            "summaries": [{"text": f" {WORSE}", "policy": "sup"}, {"text": f" {BETTER}", "policy": "ref"}],
            "choice": 1,
            "worker": "w1",
        },
        (Message("user", "SUBREDDIT: r/sky\n\nTITLE: Help\n\nPOST: My sky is blue.\n\nTL;DR:"),),
        (BETTER, WORSE),
    ),
    "summarize-from-feedback (news)": (
        {
            "info": {"id": "c", "post": None, "title": "Sky", "article": "It is blue."},
            "summaries": [{"text": BETTER}, {"text": WORSE}],
            "choice": 0,
        },
        (Message("user", "TITLE: Sky\n\nARTICLE: It is blue.\n\nTL;DR:"),),
        (BETTER, WORSE),
    ),
    "trl": ({"prompt": Q, "chosen": BETTER, "rejected": WORSE}, ASKED, (BETTER, WORSE)),
    "trl (chat)": (
        {"prompt": MESSAGES, "chosen": [said(BETTER)], "rejected": [said(WORSE)]},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "trl (chat, prompt repeated)": (
        {"prompt": MESSAGES, "chosen": [*MESSAGES, said(BETTER)], "rejected": [*MESSAGES, said(WORSE)]},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "trl-implicit": (
        {"chosen": "The sky is blue today.", "rejected": "The sky is black today."},
        (Message("user", "The sky is"),),
        ("blue today.", "black today."),
    ),
    "rewardbench": (
        {
            "text_chosen": f"User: {Q}\n\n{BETTER}",
            "text_rejected": f"User: {Q}\n\n{WORSE}",
            "scores_chosen": 1.5,
            "scores_rejected": -2,
        },
        (Message("user", f"User: {Q}"),),
        (BETTER, WORSE),
    ),
    "trl-implicit (chat)": (
        {"chosen": [*MESSAGES, said(BETTER)], "rejected": [*MESSAGES, said(WORSE)]},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "trl-unpaired": ({"prompt": Q, "completion": BETTER, "label": True}, ASKED, (BETTER,)),
    "trl-unpaired (chat)": ({"prompt": MESSAGES, "completion": [said(BETTER)], "label": True}, DIALOGUE, (BETTER,)),
    "ultrafeedback": (
        {
            "prompt": Q,
            "prompt_id": "f00",
            "chosen": [ONE_TURN, said(BETTER)],
            "rejected": [ONE_TURN, said(WORSE)],
            "messages": [ONE_TURN, said(BETTER)],
            "score_chosen": 8.5,
        },
        ASKED,
        (BETTER, WORSE),
    ),
    "ultrafeedback-raw": (
        {
            "instruction": Q,
            "source": "flan",
            "completions": [
                {"response": WORSE, "overall_score": 4.0, "model": "a"},
                {"response": BETTER, "overall_score": 8.5, "model": "b"},
            ],
        },
        ASKED,
        (BETTER, WORSE),
    ),
    "sharegpt-ranking": (
        {
            "conversations": SHAREGPT,
            "chosen": {"from": "gpt", "value": BETTER},
            "rejected": {"from": "gpt", "value": WORSE},
        },
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "alpaca-ranking": (
        {"instruction": "Explain:", "input": Q, "chosen": BETTER, "rejected": WORSE, "system": "Be brief."},
        (SYSTEM, Message("user", f"Explain:\n{Q}")),
        (BETTER, WORSE),
    ),
    "alpaca-ranking-list": (
        {"instruction": Q, "input": "", "output": [BETTER, WORSE], "history": [["Hello", "Hi!"]]},
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "ranked": ({"prompt": Q, "responses": [BETTER, WORSE, "Go away."]}, ASKED, (BETTER, WORSE, "Go away.")),
    "verdicts": (
        {
            "prompt": MESSAGES,
            "model_response": WORSE,
            "baseline_response": BETTER,
            "verdict": "baseline",
            "error": None,
        },
        DIALOGUE,
        (BETTER, WORSE),
    ),
    "verdicts (won)": (
        {"prompt": Q, "model_response": BETTER, "baseline_response": WORSE, "verdict": "model"},
        ASKED,
        (BETTER, WORSE),
    ),
    "verdicts-chosen": (
        {"prompt": Q, "model_response": WORSE, "chosen_response": BETTER, "verdict": "Chosen"},
        ASKED,
        (BETTER, WORSE),
    ),
    "messages": ({"messages": [*MESSAGES, said(BETTER)]}, DIALOGUE, (BETTER,)),
    "sharegpt": ({"conversations": [*SHAREGPT, {"from": "gpt", "value": BETTER}]}, DIALOGUE, (BETTER,)),
    "prompt-response": ({"prompt": Q, "response": BETTER}, ASKED, (BETTER,)),
    "prompt-response (generated)": (
        {"prompt": MESSAGES, "response": BETTER, "sample": 0, "finish": "eos"},
        DIALOGUE,
        (BETTER,),
    ),
    "prompt-completion": ({"prompt": Q, "completion": BETTER}, ASKED, (BETTER,)),
    "alpaca": ({"instruction": Q, "input": "", "output": BETTER}, ASKED, (BETTER,)),
    "prompts": ({"prompt": Q, "category": "sky"}, ASKED, ()),
    "prompts (chat)": ({"prompt": MESSAGES}, DIALOGUE, ()),
}

HOMEWORK = GOLDEN["HOMEWORK"][0]
