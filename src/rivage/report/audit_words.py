"""What an audit says to those who are answerable for the data: who could listen, what they could learn, how sure it is.

Every sentence follows from the rows of ``audit.json``, and none needs the table below it. No record is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rivage.report.audit_numbers import answered, asked, attacked, reasons, whose
from rivage.report.tables import number, whole

__all__ = ["Context", "sentences"]

Row = Mapping[str, Any]
Context = Mapping[str, Any]

_WHO = {
    "eavesdropper": "someone who reads what one client sends and is sent",
    "curious_server": "a server that keeps to the rules and every update",
    "curious_client": "a client that keeps the models it is sent",
    "active_server": "a server that sends models of its own making",
    "released_model": "whoever is given the final model",
    "secagg_server": "a server that sees only sums of updates",
}
_ASKED = {
    "membership": "whether a given record was used in training",
    "attribute": "a missing value in a known record",
    "model": "the model that one client's data alone would give",
    "record": "the records themselves",
    "property": "whether the data of a client have a given property",
}
_MOST_REASONS = 3


def sentences(audit: Mapping[str, Any], context: Context) -> list[tuple[str, str]]:
    """Pairs of a heading and what is to be said under it.

    Args:
        audit: of one trial.
        context: ``clients`` of the run, ``others`` (messages of the run that were not audited), ``not_run`` (attacks
            without time), ``promise`` and the largest ``epsilon`` of it, None without.
    """
    attacks = audit["attacks"]
    told = [
        ("Who could listen", _listeners(attacks)),
        ("What was tried", _tried(audit, context)),
        ("What was found", _found(attacks)),
        ("What was not found", _clean(attacks)),
        ("How sure this is", _level(attacks)),
        ("What could not be tried", _refused(attacks)),
        ("What is promised", _promised(audit, context)),
        ("What was not tested", _untested(audit, context)),
    ]
    return [(heading, text) for heading, text in told if text]


def _listeners(attacks: Sequence[Row]) -> str:
    views = dict.fromkeys(str(row["view"]) for row in attacks if answered(row))
    if not views and not attacks:
        return "No listener was imitated: only the promise was tested."
    if not views:
        return "Nobody could be imitated on these messages."
    return f"{_upper(_joined([_WHO.get(view, view) for view in views]))}."


def _tried(audit: Mapping[str, Any], context: Context) -> str:
    done = [row for row in audit["attacks"] if answered(row)]
    if not audit["attacks"]:
        return ""
    targets, clients = len(attacked(audit["attacks"])), int(context["clients"])
    who = "the only client" if clients == 1 else f"all {clients} clients" if targets == clients else ""
    asked_for = list(dict.fromkeys(_asked_for(row) for row in done))
    what = f" What they want to know: {_joined(asked_for)}." if asked_for else ""
    return f"{_counted(len(done), 'attack')} on the data of {who or f'{targets} of the {clients} clients'}.{what}"


def _asked_for(row: Row) -> str:
    kind, _, name = str(row["question"]).partition(" ")
    if row.get("metric") == "labels":
        return "the labels of records"
    if not name:
        return _ASKED.get(kind, kind)
    return f"at which clients “{name}” is common" if kind == "property" else f"the value of “{name}” in known records"


# --- findings -------------------------------------------------------------------------------------------------------


def _found(attacks: Sequence[Row]) -> str:
    """The strongest finding of each kind of listener on each question."""
    leaks = [row for row in attacks if row["verdict"] in ("leaks", "recovered") and not row.get("oracle")]
    rough = [row for row in attacks if row["verdict"] == "estimated" and not row.get("oracle")]
    if not leaks and not rough:
        return "Nothing." if any(answered(row) for row in attacks) else ""
    texts = [f"{_upper(_WHO.get(view, view))} {'; '.join(map(_finding, best))}." for view, best in _best(leaks)]
    near = [f"{_roughly(row)}." for _, best in _best(rough) for row in best]
    return " ".join([*(texts or ["Nothing beyond doubt."]), *near])


def _best(found: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """View -> its strongest finding on each question."""
    chosen: dict[str, dict[str, Row]] = {}
    for row in sorted(found, key=lambda row: -_strength(row)):
        chosen.setdefault(str(row["view"]), {}).setdefault(asked(row), row)
    order = [str(row["view"]) for row in found]
    return [(view, list(chosen[view].values())) for view in dict.fromkeys(order)]


def _strength(row: Row) -> float:
    value, baseline = float(row["value"]), float(row["baseline"])
    if row["metric"] in ("mae", "distance"):
        return 1 - value / baseline if baseline else 0.0
    return value - baseline


def _finding(row: Row) -> str:
    value, baseline = float(row["value"]), float(row["baseline"])
    kind, _, name = str(row["question"]).partition(" ")
    match row["metric"]:
        case "auc":
            right, guessed = _of_100(value, baseline)
            pair = "records that were used in training"
            if kind == "property":
                pair = f"clients where “{name}” is common"
            picks = f"of one and one, the right one in {right} of 100 cases, by guessing {guessed}"
            return f"can tell {pair} from others: {picks}"
        case "labels":
            right, guessed = _of_100(value, baseline)
            return f"can tell the labels of {right} of 100 records, without the messages {guessed}"
        case "exact":
            records = int(row["evidence"]["records"])
            rebuilt, blind = round(value * records), round(baseline * records)
            return f"can rebuild {rebuilt} of {records} records, without the messages {blind}"
        case "mae":
            unseen = _unseen(row, number)
            known = f"without the messages {number(baseline)}"
            return f"can guess “{name}” to within {number(value)} on average, {known}{unseen}"
        case "distance":
            return (
                "can rebuild the model that one client's data alone would give, to within "
                f"{_share(value)} of its size; the last model that the client sent is {_share(baseline)} away"
            )
    right, guessed = _of_100(value, baseline)
    unseen = _unseen(row, lambda share: f"{100 * share:.0f} of 100")
    return f"can guess “{name}” right in {right} of 100 records, without the messages {guessed}{unseen}"


def _unseen(row: Row, words: Callable[[float], str]) -> str:
    """How the same attack fares on records that nobody trained on."""
    facts = row.get("facts") or {}
    if "held_out" not in facts:
        return ""
    return f", and in records that were never trained on {words(float(facts['held_out']))}: {whose(facts)}"


def _roughly(row: Row) -> str:
    near = "nearer than" if float(row["value"]) < float(row["baseline"]) else "no nearer than"
    if row["metric"] != "distance":
        return f"An estimate of {_asked_for(row)} was made, of unknown worth"
    return (
        f"A guess at the model that one client's data alone would give lies {_share(float(row['value']))} of its size "
        f"away, {near} the last model that the client sent ({_share(float(row['baseline']))})"
    )


def _clean(attacks: Sequence[Row]) -> str:
    none = [row for row in attacks if row["verdict"] == "nothing found"]
    weak = [row for row in attacks if row["verdict"] == "no power"]
    texts = []
    if none:
        learnt = {_asked_for(row) for row in attacks if row["verdict"] in ("leaks", "recovered")}
        clean = [what for what in dict.fromkeys(map(_asked_for, none)) if what not in learnt]
        about = f"About {_joined(clean)}, nothing. " if clean else ""
        texts.append(
            f"{about}That {_counted(len(none), 'attack')} did better than somebody who has seen no message could not "
            "be shown. That does not show that there is nothing to find."
        )
    if weak:
        texts.append(f"{_counted(len(weak), 'attack')} had too few records to find anything, whatever there is.")
    return " ".join(texts)


def _level(attacks: Sequence[Row]) -> str:
    tests = [row for row in attacks if row.get("p_adjusted") is not None]
    if not tests:
        return ""
    shared = f"The {len(tests)} tests share one limit: if" if len(tests) > 1 else "If"
    least = min(float(row["p_adjusted"]) for row in tests)
    odds = f" One as clear as the clearest here would come about in {_chance(least)}." if least <= 0.05 else ""
    return f"{shared} nothing leaked, at most 1 of 20 such audits would say that something does.{odds}"


def _chance(p: float) -> str:
    return "fewer than 1 of a million" if p < 1e-6 else f"at most 1 of {whole(int(1 / p))}"


def _refused(attacks: Sequence[Row]) -> str:
    """Which attacks could not be run, and the first sentence of why; equal reasons once."""
    grouped: dict[str, list[str]] = {}
    for row in (row for row in attacks if row["verdict"] == "refused"):
        why = next(iter(reasons(row)), "no reason was kept").partition(". ")[0].rstrip(".")
        names = grouped.setdefault(why, [])
        names += [str(row["attack"])] if str(row["attack"]) not in names else []
    told = [f"{_joined(names)} ({why})" for why, names in list(grouped.items())[:_MOST_REASONS]]
    left = len(grouped) - len(told)
    rest = f"; {_counted(left, 'further reason')} {'stands' if left == 1 else 'stand'} in the table" if left else ""
    return f"{'; '.join(told)}{rest}." if told else ""


# --- promises and limits --------------------------------------------------------------------------------------------


def _promised(audit: Mapping[str, Any], context: Context) -> str:
    told, checked = context["promise"], audit.get("epsilon") or ()
    if told is None:
        return "Nothing: no noise is added that would bound what the messages can tell."
    tested = " ".join(map(_held, checked)) or "Whether that is kept was not tested."
    return f"{_promise(told, context['epsilon'])} {tested}"


def _promise(told: Mapping[str, Any], epsilon: float) -> str:
    one = "client" if told["unit"] == "user" else str(told["unit"])
    beyond = [f"what {one}s have in common", *told["not_covered"]]
    odds = f"{math.exp(min(epsilon, 700)):.3g}".replace("e+", " · 10^")
    return (
        f"That {told['protects']} tells of any one {one} at most what ε = {number(epsilon)} allows: it changes the "
        f"odds of a guess about it by a factor of {odds} at most, save with probability {told['delta']:g}. "
        f"Not covered: {'; '.join(beyond)}."
    )


def _held(row: Row) -> str:
    planted = "made-up clients" if row["unit"] == "user" else "made-up records"
    proof = f"{row['canaries']} {planted}, planted in a repeat of the training with ε = {number(row['epsilon'])},"
    sure = f"(confidence {100 * row['confidence']:g} %)"
    match row["verdict"]:
        case "VIOLATION":
            end = f"prove ε ≥ {number(row['bound'])} {sure}: the promise is broken"
        case "consistent":
            end = f"prove ε ≥ {number(row['bound'])} {sure}, which does not contradict it"
        case _:
            end = "prove nothing, and would not have noticed a broken promise"
    return f"{proof} {end}."


def _untested(audit: Mapping[str, Any], context: Context) -> str:
    attacks = audit["attacks"]
    done = {str(row["view"]) for row in attacks if answered(row)}
    parts = []
    if views := [who for view, who in _WHO.items() if view not in done]:
        parts.append(f"what is open to {_joined(views, 'or')}")
    kinds = {str(row["question"]).partition(" ")[0] for row in attacks if answered(row)}
    if questions := [what for kind, what in _ASKED.items() if kind not in kinds]:
        parts.append(_joined(questions))
    known = {(row["attack"], row["question"]) for row in attacks}
    late = [row["attack"] for row in context["not_run"] if (row["attack"], row["question"]) not in known]
    if late:
        parts.append(f"for want of time {_joined(list(dict.fromkeys(late)))}")
    if (spared := int(context["clients"]) - len(attacked(attacks))) > 0:
        parts.append(f"the data of {spared} further {'client' if spared == 1 else 'clients'}")
    if context["others"]:
        parts.append(f"the messages of {_joined(context['others'])}")
    return f"{_upper('; '.join([*parts, 'attacks that are not known yet']))}."


# --- wording --------------------------------------------------------------------------------------------------------


def _of_100(*values: float) -> list[str]:
    """Shares out of a hundred; with a decimal where whole numbers would say too little."""
    rounded = [f"{100 * value:.0f}" for value in values]
    equal = len(set(rounded)) < len(set(values))
    perfect = any(text == "100" and value < 1 for text, value in zip(rounded, values, strict=True))
    return [f"{100 * value:.1f}" for value in values] if equal or perfect else rounded


def _share(value: float) -> str:
    return "a millionth" if 0 < value < 1e-6 else f"{100 * value:.3g} %"


def _upper(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _joined(words: Iterable[str], last: str = "and") -> str:
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
