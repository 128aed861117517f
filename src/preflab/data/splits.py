"""From a recipe's settings to tokenised rows: sources, formats, samples and splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from preflab.core.records import Comparison, UserError
from preflab.core.terminal import one_line, say
from preflab.data.cache import TokenizedDataset, tokenized
from preflab.data.column_use import ColumnTally, columns_from_json, columns_to_json
from preflab.data.column_use import described as columns_lines
from preflab.data.comparisons import Need, Side, choose_formats, fitting, read_comparisons, sample_comparisons
from preflab.data.overlap import Overlap, overlap, what_drops_did
from preflab.data.remarks import RemarkTally
from preflab.data.remarks import described as remark_lines
from preflab.data.rendering import CLOSED, OPENED
from preflab.data.settings import DataSettings
from preflab.data.sources import Source, open_sources, sample_rows
from preflab.data.templates import apply_named_template, apply_template_values
from preflab.data.tokenize import TOO_LONG, ChatTemplate, Dropped
from preflab.model.adapters import Task
from preflab.model.configs import check_kind, is_reward_model, own_stop_ids, read_config, unread_id
from preflab.model.in_memory import InMemory
from preflab.model.responses import Model, transformers_model
from preflab.model.settings import LoraSettings, ModelSettings
from preflab.model.tokenizers import check_ids, embedding_rows, load_tokenizer, padding_for


@dataclass(frozen=True)
class Splits:
    """Rows to train on, and held-out rows where there are any."""

    training: TokenizedDataset
    held_out: TokenizedDataset | None
    notes: tuple[str, ...] = ()

    @property
    def overlap(self) -> Overlap | None:
        """Held-out rows and prompts that are also trained on."""
        return overlap(self.training.text_hashes, self.held_out.text_hashes) if self.held_out else None

    @property
    def fingerprints(self) -> dict[str, str]:
        held_out = {"eval_data": self.held_out.fingerprint} if self.held_out else {}
        return {"train_data": self.training.fingerprint, **held_out}

    def report(self) -> str:
        """Counts of used and dropped rows, with reasons and row numbers; what drops did to the data, which splits are
        mixed, and what is held out and trained on.
        """
        parts = {"training": self.training} | ({"held-out": self.held_out} if self.held_out else {})
        lines = [line for side, dataset in parts.items() for line in _describe(side, dataset)]
        lines += [f"warning: {note}" for note in self.notes]
        if self.overlap and self.overlap.prompts:
            lines.append(f"warning: {self.overlap}: held-out figures say less about prompts that are new")
        return "\n".join(lines)


def load_template(settings: ModelSettings, task: Task = "policy", held: InMemory | None = None) -> ChatTemplate:
    """The model's chat template, or the one chosen by name.

    A reward model that is trained on is read where it has been read so far (see `template_of`); one that starts from a
    language model, at the terminator. Where an adapter's base model has no token to pad with but the terminator, a line
    break is put after it and read: others would pass over the terminator as padding.
    """
    fresh = task == "reward" and not held and not is_reward_model(settings.model, revision=settings.revision)
    trust, revision = settings.trust_remote_code, settings.revision
    template = template_of(
        settings.model,
        settings.chat_template,
        settings.chat_template_kwargs,
        task="policy" if fresh else task,
        trust_remote_code=trust,
        revision=revision,
        held=held,
    )
    if fresh and isinstance(settings, LoraSettings) and settings.lora:
        config = read_config(settings.model, trust_remote_code=trust, revision=revision).get_text_config()
        tokenizer = template.tokenizer
        if padding_for(template.stop_ids, tokenizer, rows=getattr(config, "vocab_size", None)) is None:
            tokenizer.chat_template = template.ending_with("\n")
            return ChatTemplate(tokenizer, whole_turn=True, unread_id=tokenizer.eos_token_id)
    return template


def template_of(
    model: str,
    chat_template: str | None,
    values: Mapping[str, Any] | None = None,
    *,
    task: Task = "policy",
    trust_remote_code: bool = False,
    revision: str | None = None,
    held: InMemory | None = None,
) -> ChatTemplate:
    """The chat template of a model by its name, or the template called `chat_template`; `values` are for its switches.
    Of a model that is `held` in memory, a copy of its tokenizer is used.

    A reward model is read where its author reads it, at the last token that its own template renders, which with models
    of ours is the terminator; with a template called by name, at the terminator.
    """
    if held:
        held.check(task)
        tokenizer, stops = held.copy_of_tokenizer(), held.stop_ids
    else:
        check_kind(model, task, trust_remote_code=trust_remote_code, revision=revision)
        tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code, revision=revision)
        stops = own_stop_ids(model, revision=revision)
    apply_named_template(tokenizer, chat_template)
    apply_template_values(tokenizer, values or {})
    if task == "reward" and chat_template is None:
        if held:
            unread = held.unread_id
        else:
            unread = unread_id(model, tokenizer.pad_token_id, trust_remote_code=trust_remote_code, revision=revision)
        return ChatTemplate(tokenizer, own_stop_ids=stops, whole_turn=True, unread_id=unread)
    return ChatTemplate(tokenizer, own_stop_ids=stops)


def load_splits(settings: DataSettings, template: ChatTemplate, *, need: Need, seed: int) -> Splits:
    """Tokenise what the settings name. Rows that do not serve `need` are dropped and counted like any other."""
    if settings.eval_data and settings.train_split_ratio:
        raise UserError("eval_data and train_split_ratio are two ways to hold rows out: give one of them")
    train = open_sources(settings.train_data, settings.columns, beside=settings.eval_data)
    side: Side | None = "training" if settings.train_split_ratio else None
    training = _tokenize(train, settings, template, need, seed, side, settings.max_train_samples)
    if settings.min_score_margin is not None and not training.notes["scored"]:
        raise UserError(f"min_score_margin: no row of {train.name} states the scores of its responses")
    if settings.eval_data:
        evaluation = open_sources(settings.eval_data, settings.columns, beside=settings.train_data)
    elif settings.train_split_ratio:
        evaluation, side = train, "held-out"
    else:
        return Splits(training, None, train.notes)
    held_out = _tokenize(evaluation, settings, template, need, seed, side, settings.max_eval_samples)
    return Splits(training, held_out, tuple(dict.fromkeys((*train.notes, *evaluation.notes))))


def _tokenize(
    source: Source,
    settings: DataSettings,
    template: ChatTemplate,
    need: Need,
    seed: int,
    side: Side | None,
    most: int | None,
) -> TokenizedDataset:
    """The rows on one side, or a seeded sample of `most` of them."""
    if most and not side:
        source = sample_rows(source, most, seed)
    formats = choose_formats(source, settings.format)
    margin = settings.min_score_margin
    columns, remarks = ColumnTally(formats), RemarkTally()

    def read() -> Iterator[Comparison | Dropped]:
        return fitting(
            read_comparisons(source, formats, columns),
            need,
            ratio=settings.train_split_ratio,
            seed=seed,
            side=side,
            min_score_margin=margin,
        )

    split = f"{settings.train_split_ratio} {seed} {side} {most}" if side else ""
    dataset = tokenized(
        remarks.watch(sample_comparisons(read, most, seed) if most and side else read()),
        template,
        data_fingerprint=" ".join(
            [
                source.fingerprint(),
                *(f"{name} {form.fingerprint}" for name, form in formats),
                need,
                split,
                *([f"margin {margin}"] if margin is not None else []),
            ]
        ),
        notes=lambda: {
            "columns": columns_to_json(columns.columns(source)),
            "remarks": remarks.found,
            "scored": remarks.scored,
        },
        max_length=settings.max_length,
        max_prompt_length=settings.max_prompt_length,
        on_too_long=settings.on_too_long,
    )
    if not len(dataset):
        raise UserError("\n".join([f"{source.name}: no row can be used", *_describe(side or "all", dataset)]))
    return dataset


def check_rows(model: Model, dataset: TokenizedDataset) -> None:
    """Refuse rows with ids that the model's embeddings do not have. Raises UserError with the first of them."""
    if found := dataset.beyond(embedding_rows(transformers_model(model))):
        check_ids(model, found[1], f"row {found[0]}")


def tell_notes(source: Source) -> None:
    """Tell the person at the terminal what is to be known of a source: that it mixes splits, say."""
    for note in source.notes:
        say(f"warning: {note}")


def count_by_reason(dropped: Iterable[Dropped]) -> dict[str, Any]:
    """Reason -> how many rows, their numbers, and what was found in the first."""
    reasons: dict[str, Any] = {}
    for item in dropped:
        reason = reasons.setdefault(item.reason, {"count": 0, "rows": [], "example": item.detail})
        reason["count"] += 1
        reason["rows"].append(item.row)
    return reasons


def _describe(side: str, dataset: TokenizedDataset) -> list[str]:
    """What the columns are read as, how many rows are used and dropped, and what the used ones say of themselves."""
    dropped = sum(reason["count"] for reason in dataset.dropped.values())
    lines = [f"{side} rows: {len(dataset)} used, {dropped} dropped"]
    for name, reason in dataset.dropped.items():
        rows = ", ".join(map(str, reason["first_rows"]))
        lines.append(
            f"  {one_line(name)}: {reason['count']} "
            f"(row {rows}{'…' if reason['count'] > len(reason['first_rows']) else ''})"
        )
        if reason["example"] and (name in (OPENED, CLOSED) or not len(dataset)):  # what there is to be done about it
            lines.append(f"    row {reason['first_rows'][0]}: {one_line(reason['example'])}")
    too_long = dataset.dropped[TOO_LONG]["count"] if TOO_LONG in dataset.dropped else 0
    if told := what_drops_did(too_long, len(dataset) + dropped, *dataset.bias, "characters"):
        lines.append(f"warning: {told}. A larger max_length keeps more of them")
    columns = columns_lines(columns_from_json(dataset.notes.get("columns", ())))
    return [*columns, *lines, *(f"  warning: {line}" for line in remark_lines(dataset.notes.get("remarks", {})))]
