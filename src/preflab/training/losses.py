"""From settings to a loss: the objective's function with its hyper-parameters, tried out before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from preflab.core.plugins import FAILURES, Plugin, load
from preflab.core.records import UserError
from preflab.objectives import LabelledLogps, Loss, Named, Objective, PairLogps, Statistic, StepValues, weighted
from preflab.training.preference_settings import PreferenceSettings

_ROWS = 3


def loss_of(settings: PreferenceSettings) -> Callable[[Any], Loss]:
    """The loss of the settings' objective and its further terms. Raises UserError where a term gives no loss."""
    losses = {term.settings.objective: (term.weight, _loss_of_term(term.settings)) for term in settings.terms}
    return weighted(losses) if len(losses) > 1 else losses[settings.objective][1]


def needs_reference(settings: PreferenceSettings) -> bool:
    """Whether any term of the objective reads the reference's log-probabilities."""
    return any(term.settings.line.reference for term in settings.terms)


def statistics_of(settings: PreferenceSettings) -> dict[str, Statistic]:
    """What the objective and its further terms need to know of a whole step, by name. Raises UserError where two give a
    name to different things.
    """
    found: dict[str, Statistic] = {}
    for term in settings.terms:
        for name, statistic in term.settings.line.statistics.items():
            if found.setdefault(name, statistic) != statistic:
                raise UserError(f"{term.settings.objective}: another term of the loss has a statistic {name!r} as well")
    return found


def own_code(settings: PreferenceSettings) -> dict[str, str]:
    """Fingerprints of what is not ours in the objective and its terms: functions in a user's files, or in packages."""
    found = {}
    for term in settings.terms:
        plugin = term.settings.plugin
        if plugin.fingerprint:
            found[f"objective {plugin.name}"] = plugin.fingerprint[:16]
        for name, (spec, function) in _named(term.settings).items():
            found[f"{name} {spec}"] = function.fingerprint[:16] or spec
    return found


def _named(settings: PreferenceSettings) -> dict[str, tuple[str, Plugin]]:
    """The hyper-parameters that are functions, each as the settings name it and as it was found."""
    found = {}
    for name, hint in get_type_hints(settings.line.loss, include_extras=True).items():
        for mark in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
            if isinstance(mark, Named):
                spec = settings.hyperparameters[name]
                found[name] = spec, load(spec, name, mark.known)
    return found


def _loss_of_term(settings: PreferenceSettings) -> Callable[[Any], Loss]:
    functions = {name: _guarded(name, plugin) for name, (_, plugin) in _named(settings).items()}
    loss = partial(settings.line.loss, **{**settings.hyperparameters, **functions})
    _try_out(loss, settings)
    return loss


def _guarded(name: str, plugin: Plugin) -> Callable[..., Any]:
    """The function, whose mistakes are told with their line. That it divides by zero is the objective's to judge."""

    def guarded(*given: object) -> Any:
        try:
            return plugin.value(*given)
        except ArithmeticError:
            raise
        except FAILURES as error:
            what = f"{type(error).__name__}: {error}, of {', '.join(map(str, given))}"
            raise UserError(f"{name}: {plugin.place(error)}: {what}") from error

    return guarded


def _try_out(loss: Callable[[Any], Loss], settings: PreferenceSettings) -> None:
    """Raises UserError where the function, given three pairs or responses, returns no loss that could be trained by."""
    plugin, line = settings.plugin, settings.line
    named = [f"{name} {spec}" for name, (spec, _) in _named(settings).items()]
    who = ", ".join([plugin.name if plugin.path is None else f"{plugin.where}: {plugin.name}", *named])
    policy = torch.tensor([-10.0, -20.0, -30.0], requires_grad=True)
    try:
        given = _probe(line, policy)
        found = loss(given)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{who}: {error}") from error
    except FAILURES as error:
        if plugin.path is None:
            raise
        raise UserError(f"{plugin.place(error)}: {type(error).__name__}: {error}, tried with {_ROWS} rows") from error
    if problem := _problem(found):
        raise UserError(f"{who}: {problem} (tried with {given})")


def _probe(line: Objective, policy: Tensor) -> PairLogps | LabelledLogps:
    other = policy.detach() + (1.0 if line.reference else float("nan"))
    tokens = torch.tensor([5, 6, 7])
    known = StepValues(policy.detach().double(), other.double(), tokens)
    found = {name: statistic.of(known).float() for name, statistic in line.statistics.items()}
    if strange := [name for name, value in found.items() if value.shape or not value.isfinite()]:
        raise ValueError(f"its statistic {strange[0]!r} must be one finite number, and is {found[strange[0]]}")
    if line.data == "pairs":
        return PairLogps(policy, policy - 2, other, other - 3, tokens, tokens + 2, statistics=found)
    return LabelledLogps(policy, other, torch.tensor([True, False, True]), tokens, statistics=found)


def _problem(found: object) -> str | None:
    """What is wrong with what a loss returned for three rows."""
    if not (isinstance(found, tuple) and len(found) == len(Loss._fields)):
        return f"it must return Loss(per_example, values), and returned {type(found).__name__}"
    per_example, values = found
    if not isinstance(per_example, Tensor) or per_example.shape != (_ROWS,):
        return f"its losses must be a tensor of [{_ROWS}], one per row, and are {_shape(per_example)}"
    if not bool(per_example.isfinite().all()):
        return f"its losses are not finite: {per_example.tolist()}"
    if not per_example.requires_grad:
        return "its losses do not depend on the policy's log-probabilities, so nothing would be learnt"
    if not isinstance(values, dict):
        return f"its values must be a dict of tensors by name, and are {_shape(values)}"
    for name, value in values.items():
        if not isinstance(value, Tensor) or value.shape != (_ROWS,):
            return f"its value {name!r} must be a tensor of [{_ROWS}], one per row, and is {_shape(value)}"
    return None


def _shape(value: object) -> str:
    return f"of {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
