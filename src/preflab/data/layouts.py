"""The second half of the table of formats: preference data as arenas, benchmarks and other tools write it."""

from __future__ import annotations

from preflab.data.layout import Format
from preflab.data.parsers import elsewhere, winners

LAYOUTS: dict[str, Format] = {
    **{
        f"winner-{first}{second}": Format(
            winners.winner(f"response_{first}", f"response_{second}"),
            "ranking",
            f"response_{first} and response_{second}; winner names the better one, or says that it is a tie",
            ("prompt", f"response_{first}", f"response_{second}", "winner"),
            optional=(f"model_{first}", f"model_{second}"),
            roles={"winner": "choice"},
            prompt="prompt",
            responses=(f"response_{first}", f"response_{second}"),
            choice="winner",
        )
        for first, second in (("a", "b"), ("1", "2"), ("0", "1"))
    },
    "arena": Format(
        winners.arena,
        "ranking",
        "Chatbot Arena: two conversations that differ in their last answer; winner is model_a, model_b or a tie",
        ("conversation_a", "conversation_b", "winner"),
        optional=("turn", "model_a", "model_b"),
        roles={"conversation_a": "prompt and response", "conversation_b": "response", "winner": "choice"},
    ),
    "lmsys-kaggle": Format(
        winners.lmsys_kaggle,
        "ranking",
        "Kaggle's LMSYS: lists of prompts and responses as JSON; winner_model_a or winner_model_b is 1",
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
        optional=("winner_tie",),
        roles=dict.fromkeys(("winner_model_a", "winner_model_b", "winner_tie"), "choice"),
    ),
    "helpsteer2-preference": Format(
        winners.helpsteer2_preference,
        "ranking",
        "HelpSteer2's preferences: preference_strength is negative where response_1 is better, and 0 for a tie",
        ("prompt", "response_1", "response_2", "preference_strength"),
        roles={"preference_strength": "choice"},
    ),
    "helpsteer3": Format(
        winners.helpsteer3,
        "ranking",
        "HelpSteer3's preferences: overall_preference is negative where response1 is better, and 0 for a tie",
        ("context", "response1", "response2", "overall_preference"),
        roles={"context": "prompt", "overall_preference": "choice"},
    ),
    "openai-preference": Format(
        elsewhere.openai_preference,
        "ranking",
        "OpenAI's preference fine-tuning: input with messages, preferred_output and non_preferred_output",
        ("input", "preferred_output", "non_preferred_output"),
        roles={"input": "prompt", "preferred_output": "chosen", "non_preferred_output": "rejected"},
    ),
    "ms-swift": Format(
        elsewhere.ms_swift,
        "ranking",
        "ms-swift: messages that end with the preferred answer, and rejected_response in its place",
        ("messages", "rejected_response"),
        roles={"messages": "prompt and chosen", "rejected_response": "rejected"},
    ),
    "ms-swift-messages": Format(
        elsewhere.ms_swift_messages,
        "ranking",
        "ms-swift: two whole conversations, messages the preferred one, rejected_messages the other",
        ("messages", "rejected_messages"),
        roles={"messages": "prompt and chosen", "rejected_messages": "rejected"},
    ),
    "ms-swift-query": Format(
        elsewhere.ms_swift_query,
        "ranking",
        "ms-swift: query (with history where there is one), response and rejected_response",
        ("query", "response", "rejected_response"),
        optional=("history",),
        roles={"query": "prompt", "history": "earlier turns", "response": "chosen", "rejected_response": "rejected"},
        prompt="query",
    ),
    "ms-swift-alpaca": Format(
        elsewhere.alpaca_rejected,
        "ranking",
        "alpaca's instruction (with input, history where there are) and output, and rejected_response",
        ("instruction", "output", "rejected_response"),
        optional=("input", "context", "history"),
        roles={
            **{"instruction": "prompt", "input": "prompt", "context": "prompt", "history": "earlier turns"},
            **{"output": "chosen", "rejected_response": "rejected"},
        },
    ),
    "candidates": Format(
        elsewhere.candidates,
        "ranking",
        "prompt, and a list of responses as objects, by their rank (1 is best) or score, as in Nectar",
        ("prompt", "candidates"),
        elsewhere.are_candidates,
        roles={"candidates": "responses and scores"},
        prompt="prompt",
        candidates="candidates",
    ),
    "rewardbench-2": Format(
        elsewhere.rewardbench_2,
        "ranking",
        "RewardBench 2 and RM-Bench: lists of good and of bad responses, of which the first of each make the pair",
        ("prompt", "chosen", "rejected"),
        elsewhere.are_lists_of_texts,
        prompt="prompt",
    ),
}
