"""Chat messages as data sets write them -> `Message`, or a RowError that says what cannot be read or trained.

What a message says beside its text is read (reasoning), or does no harm (names, ids: `unread_fields` lists them), or
stops the row by name: tool calls, images, turns that are not to be trained. Nothing of it is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from preflab.core.records import Comparison, Message, Role, RowError
from preflab.data.fields import Row, as_text, excerpt, is_missing, present

# The names that chat data sets give to the three roles, in lower case.
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai"), "assistant"),
}
_TOOL_ROLES = frozenset(
    f"{what}{said}" for what in ("tool", "function") for said in ("", "s", "_call", "_calls", "_response", "_result")
) | {"observation", "ipython"}
_ROLE_KEYS = ("role", "from", "speaker", "author")
_CONTENT_KEYS = ("content", "value", "text")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_TOOL_KEYS = ("tool_calls", "tool_call_id", "function_call", "tools", "functions")
_MEDIA_KEYS = ("images", "image", "videos", "video", "audios", "audio")
_WEIGHT_KEYS = ("weight", "train", "training", "trainable", "loss", "loss_weight", "loss_scale")
_PARTLY_TRAINED_KEYS = ("train_detail", "training_detail")
_READ = frozenset(
    (*_ROLE_KEYS, *_CONTENT_KEYS, *_REASONING_KEYS, *_TOOL_KEYS, *_MEDIA_KEYS, *_WEIGHT_KEYS, *_PARTLY_TRAINED_KEYS)
)

NO_TOOLS = "tool calls are not supported"
_NO_MEDIA = {
    "image": "images are not supported",
    "video": "videos are not supported",
    "audio": "audio is not supported",
}


def messages(row: Row, name: str) -> tuple[Message, ...]:
    """Chat messages: objects with a role (or from, speaker) and a content (or value, text), or pairs of turns such as
    `{"human": …, "assistant": …}`. The last one, if the assistant's, must be one that is to be trained.
    """
    value = present(row, name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not a list of objects")
    items = [turn for item in value for turn in _turns_of_pair(item)]
    turns = tuple(_message(item, f"{name}[{index}]") for index, item in enumerate(items))
    if turns and turns[-1].role == "assistant":
        _refuse_untrained(items[-1], f"{name}[{len(items) - 1}]")
    return turns


def message(row: Row, name: str) -> Message:
    """One message, or a list of one."""
    value = present(row, name)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise RowError("wrong type", f"`{name}` is {excerpt(value)}, not a message")
    return messages({name: [value]}, name)[0]


def conversation(row: Row, name: str) -> tuple[Message, ...]:
    """A prompt given as text, as one chat message or as several."""
    value = present(row, name)
    if isinstance(value, dict):
        return messages({name: [value]}, name)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        if len(value) > 1:
            raise RowError("whose turns", f"`{name}` is a list of {len(value)} texts that does not say who speaks")
        value = value[0]
    return messages(row, name) if isinstance(value, list) else user(as_text(value, name))


def user(content: str) -> tuple[Message, ...]:
    """One user turn."""
    return (Message("user", content),)


def is_said_by_assistant(value: object) -> bool:
    """Whether a value is a message of the assistant's."""
    return _speaker(value) == "assistant"


def is_said_by_user(value: object) -> bool:
    """Whether a value is a message of the user's."""
    return _speaker(value) == "user"


def _speaker(value: object) -> Role | None:
    role = next((value[key] for key in _ROLE_KEYS if key in value), None) if isinstance(value, dict) else None
    return _ROLES.get(str(role).strip().lower())


def is_message(value: object) -> bool:
    """Whether a value is an object with a role that is known, of a model or a tool, and a content."""
    if not isinstance(value, dict) or not any(key in value for key in _CONTENT_KEYS):
        return False
    role = next((value[key] for key in _ROLE_KEYS if key in value), None)
    return isinstance(role, str) and (role.lower() in _ROLES or role.lower() in _TOOL_ROLES)


def rows_of_columns(value: object) -> object:
    """A list of objects that was stored by column, as `datasets` stores a sequence of them: {"role": ["user"],
    "content": ["Hi"]} -> [{"role": "user", "content": "Hi"}]. Any other value comes back as it is.
    """
    rows = _by_row(value)
    return rows if rows and all(is_message(row) for row in rows) else value


def _by_row(value: object) -> list[dict[Any, Any]]:
    """{"a": [1, 2], "b": [3, 4]} -> [{"a": 1, "b": 3}, {"a": 2, "b": 4}]; nothing if it is no table by columns."""
    if not isinstance(value, dict) or not all(isinstance(column, list) for column in value.values()):
        return []
    if len({len(column) for column in value.values()}) != 1:
        return []
    return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]


def unread_fields(value: object) -> set[str]:
    """The names of the fields of chat messages that say something which is not read, such as `id` and `name`."""
    items = value if isinstance(value, list) else [value]
    return {
        str(key)
        for item in items
        if isinstance(item, dict) and is_message(item)
        for key, said in item.items()
        if key not in _READ and not is_nothing(said)
    }


def is_nothing(value: object) -> bool:
    """Whether a field says nothing: null, NaN, an empty text or list, or a text that stands for one of these."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "[]", "{}", "null", "none", "nan")
    return is_missing(value) or (isinstance(value, list | dict) and not value)


_TOOLS = ("tools", "functions", "tool_calls")
_MEDIA = {
    kind: (kind, f"{kind}s", f"{kind}_path", f"{kind}_paths", f"{kind}_url", f"{kind}_urls") for kind in _NO_MEDIA
}
UNSUPPORTED_COLUMNS = (*_TOOLS, *(name for names in _MEDIA.values() for name in names))
"""Columns for which a row is refused where they hold something."""


def refuse_unsupported(row: Row) -> None:
    """Raises RowError where a row has tools to call, or images, video or audio beside its text or in it."""
    for text in _texts_of(row):
        if "<img>" in text and (found := _IMAGE_IN_TEXT.search(text)):
            raise RowError(_NO_MEDIA["image"], f"{excerpt(found[0])} stands in the text")
    for name in _TOOLS:
        if not is_nothing(value := row.get(name)) and _holds_objects(value):
            raise RowError(NO_TOOLS, f"`{name}` is {excerpt(value)}")
    for kind, reason in _NO_MEDIA.items():
        for name in _MEDIA[kind]:
            if not is_nothing(value := row.get(name)) and not isinstance(value, bool | int | float):
                raise RowError(reason, f"`{name}` is {excerpt(value)}")
            if name in row and any(f"<{kind}>" in text for text in _texts_of(row)):
                raise RowError(reason, f"there is a place for one, <{kind}>, in the text")


_IMAGE_IN_TEXT = re.compile(r"<img>[^<>\s]+</img>")  # as Qwen-VL's data has it; HTML has no such thing


def _holds_objects(value: object) -> bool:
    """A list or an object, or one as text; plain words in a column of that name are a remark on the row."""
    return isinstance(value, list | dict) or (isinstance(value, str) and value.lstrip().startswith(("[", "{")))


def _texts_of(value: object) -> list[str]:
    """All texts in a value, however deep."""
    texts, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, Mapping | list):
            waiting += item.values() if isinstance(item, Mapping) else item
    return texts


# One message ----------------------------------------------------------------------------------------------------------


def _turns_of_pair(item: Row) -> Sequence[Row]:
    """`{"human": "Hi", "assistant": "Hello!"}` is two turns; any other object is one."""
    if not is_pair_of_turns(item):
        return [item]
    turns = [{"role": _pair_role(key), "content": item[key]} for key in item]
    return sorted(turns, key=lambda turn: turn["role"] != "user")


def is_pair_of_turns(item: object) -> bool:
    """Whether an object has two texts, of which the names say that one is the user's and one the assistant's."""
    return (
        isinstance(item, dict)
        and len(item) == 2
        and all(isinstance(text, str) for text in item.values())
        and {_pair_role(key) for key in item} == {"user", "assistant"}
    )


_PAIR_ROLES: dict[str, Role] = {
    **dict.fromkeys(("question", "query", "input", "instruction", "prompt"), "user"),
    **dict.fromkeys(("answer", "response", "output"), "assistant"),
}


def _pair_role(key: object) -> Role | None:
    return {**_ROLES, **_PAIR_ROLES}.get(str(key).lower())


def _message(item: Row, name: str) -> Message:
    _refuse_tools_and_media(item, name)
    content_key = next((key for key in _CONTENT_KEYS if not is_missing(item.get(key))), None)
    role_key = next((key for key in _ROLE_KEYS if not is_missing(item.get(key))), None)
    if role_key is None or not any(key in item for key in _CONTENT_KEYS):
        shown = excerpt(", ".join(map(str, item)))
        raise RowError("wrong type", f"`{name}` has no role and content, and no from and value; it has {shown}")
    role = _role(item[role_key], name)
    if content_key is None:
        raise RowError("missing value", f"the content of `{name}` is null")
    content, thought = _content(item[content_key], f"{name}.{content_key}")
    reasoning = _reasoning(item, name, thought)
    if reasoning and role != "assistant":
        raise RowError("misplaced reasoning", f"`{name}` is by the {role}, and only an assistant's reasoning is read")
    return Message(role, content, reasoning)


def _role(value: object, name: str) -> Role:
    spoken = str(value).strip().lower()
    if spoken in _TOOL_ROLES:
        raise RowError(NO_TOOLS, f"`{name}` is by {excerpt(value)}")
    role = _ROLES.get(spoken)
    if role is None:
        raise RowError("unknown role", f"`{name}` is by {excerpt(value)}; known are {', '.join(_ROLES)}")
    return role


def _refuse_tools_and_media(item: Row, name: str) -> None:
    for key in _TOOL_KEYS:
        if not is_nothing(item.get(key)):
            raise RowError(NO_TOOLS, f"`{name}.{key}` is {excerpt(item[key])}")
    for key in _MEDIA_KEYS:
        if not is_nothing(item.get(key)):
            raise RowError(_NO_MEDIA[key.removesuffix("s")], f"`{name}.{key}` is {excerpt(item[key])}")
    channel = item.get("channel")
    if not is_nothing(channel) and channel != "final":
        raise RowError("channels are not supported", f"`{name}` is on the channel {excerpt(channel)}, not on `final`")
    if not is_nothing(item.get("refusal")):
        raise RowError("refusals are not read", f"`{name}.refusal` is {excerpt(item['refusal'])}")


def _content(value: object, name: str) -> tuple[str, str]:
    """The text of a content, and what was thought in it: a text, or parts, whose texts are joined as templates do."""
    if isinstance(value, dict):
        value = _by_row(value) or [value]
    if not isinstance(value, list):
        return as_text(value, name), ""
    said: list[str] = []
    thought: list[str] = []
    for index, part in enumerate(value):
        is_thought, text = _part(part, f"{name}[{index}]")
        (thought if is_thought else said).append(text)
    return "".join(said), "".join(thought)


def _part(part: object, name: str) -> tuple[bool, str]:
    """Whether a part is reasoning, and its text."""
    if isinstance(part, str):
        return False, part
    if not isinstance(part, dict):
        raise RowError("wrong type", f"`{name}` is {excerpt(part)}, not a part of a content")
    kind = str(part.get("type") or "text").lower()
    for medium, reason in _NO_MEDIA.items():
        if medium in kind or not is_nothing(part.get(medium)) or not is_nothing(part.get(f"{medium}_url")):
            raise RowError(reason, f"`{name}` is {excerpt(part)}")
    if "tool" in kind or "function" in kind:
        raise RowError(NO_TOOLS, f"`{name}` is {excerpt(part)}")
    is_thought = kind in ("reasoning", "thinking")
    if not is_thought and kind not in ("text", "input_text", "output_text"):
        raise RowError("unknown kind of content", f"`{name}` is of the type {excerpt(kind)}; only text is read")
    keys = (*_REASONING_KEYS, *_CONTENT_KEYS) if is_thought else ("text", "value", "content")
    found = next((part[key] for key in keys if not is_missing(part.get(key))), None)
    return is_thought, as_text(found, f"{name}.text")


def _reasoning(item: Row, name: str, thought: str) -> str:
    """What was thought before the content: a field of its own, under any of its names, or parts of the content."""
    found = {
        key: "".join(_content(item[key], f"{name}.{key}")) for key in _REASONING_KEYS if not is_nothing(item.get(key))
    }
    if thought:
        found["content"] = thought
    if len({text.strip() for text in found.values()}) > 1:
        raise RowError("two reasonings", f"`{name}` has different ones in {' and '.join(found)}")
    return next(iter(found.values()), "")


def _refuse_untrained(item: Row, name: str) -> None:
    """A turn that is to be trained must not say that it is not, or only by half, nor may a part of its content: preflab
    trains a whole last turn.
    """
    _refuse_weights(item, name)
    for key in (*_CONTENT_KEYS, *_REASONING_KEYS):
        if isinstance(parts := item.get(key), list):
            for index, part in enumerate(parts):
                if isinstance(part, dict):
                    _refuse_weights(part, f"{name}.{key}[{index}]")


def _refuse_weights(item: Row, name: str) -> None:
    for key in _WEIGHT_KEYS:
        value = item.get(key)
        if is_nothing(value):
            continue
        said = str(value).strip().lower()
        try:
            weight = {"true": 1.0, "false": 0.0}[said] if said in ("true", "false") else float(said)
        except ValueError:
            raise RowError("wrong type", f"`{name}.{key}` is {excerpt(value)}, not a weight") from None
        if weight == 0:
            raise RowError("untrained turn", f"`{name}.{key}` is {said}, and it is the turn that would be trained")
        if weight != 1:
            raise RowError("weighted turn", f"`{name}.{key}` is {said}; turns are trained with weight 1 or not at all")
    for key in _PARTLY_TRAINED_KEYS:
        if not is_nothing(item.get(key)):
            raise RowError("partly trained turn", f"`{name}.{key}` is {excerpt(item[key])}; turns are trained whole")


def of_replies(prompt: tuple[Message, ...], answers: Sequence[Message], **more: Any) -> Comparison:
    """A comparison whose responses, best first, were read as messages: their reasoning comes with them."""
    reasoning = tuple(answer.reasoning for answer in answers)
    return Comparison(
        prompt, tuple(answer.content for answer in answers), reasoning=reasoning if any(reasoning) else (), **more
    )
