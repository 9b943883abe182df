"""How a run came about, a section each: where the budget went, how it trained, what it cost, what repeats it."""

from __future__ import annotations

import json
import shlex

from submillion.judging.metrics import LOSSES, NAMES
from submillion.reports.curves import BAND, evaluations_table
from submillion.reports.run import Report
from submillion.reports.sections import Section, Table, as_sentences
from submillion.reports.several import unit
from submillion.text import duration, percent


def plan(report: Report) -> Section:
    """Where the budget went."""
    plan = report.plan
    share = f"{percent(plan.total / plan.all_params)} of {plan.all_params:,} parameters train"
    limit = "no budget: full fine-tuning" if plan.budget is None else f"of a budget of {plan.budget:,}"
    rows = [
        (part.name, _cell(part.n_layers), _cell(part.rank), _cell(part.params), percent(part.params / plan.total))
        for part in report.parts
    ]
    return Section(
        anchor="plan",
        nav="Plan",
        title=f"{plan.total:,} parameters train, {limit}",
        sentences=(f"{plan.architecture.name}, method {plan.method}: {share}.", *as_sentences(plan.reasons)),
        figure="plan" if plan.targets else None,
        reading="Encoder layers from the bottom up, a column per site: the stronger the colour, the more parameters; r "
        "is the rank. Blank cells have no adapter. The head lies on top.",
        tables=(Table("Trainable parameters", ("part", "layers", "rank", "parameters", "share"), rows),),
    )


def _cell(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def training(report: Report) -> Section:
    """Loss and the first score over the steps, and which checkpoint was taken."""
    chosen = [record for record in report.evaluations if record.best][-1:]
    if not chosen:
        return Section("training", "Training", "metrics.jsonl holds no evaluation: how training went is not known")
    best, last, n = chosen[0], report.evaluations[-1], len(report.evaluations)
    height = "lowest" if report.decides in LOSSES else "highest"
    when = "the last" if best.step == last.step else f"not the last, {last.step:,}"
    title = f"The checkpoint of step {best.step:,} was chosen from {n} evaluated ({when})"
    return Section(
        anchor="training",
        nav="Training",
        title=title if n > 1 else f"The only checkpoint that was evaluated is that of step {best.step:,}",
        sentences=() if report.stopped is None else as_sentences((str(report.stopped),)),
        figure="training",
        reading=f"The chosen checkpoint has the {height} validation {NAMES[report.decides]}; among equals, "
        f"the lowest loss. {BAND}"
        if n > 1
        else BAND,
        tables=(evaluations_table(report.evaluations),),
    )


def cost(report: Report) -> Section:
    """Time by phase, tokens per second, peak memory."""
    training_s = sum(record.seconds for record in report.steps)
    evaluation_s = sum(record.evaluation_s for record in report.evaluations)
    n_tokens = sum(record.tokens for record in report.steps)
    # The first record's seconds include the work before it: loading, reading, building.
    rate_s, rated = sum(r.seconds for r in report.steps[1:]), sum(r.tokens for r in report.steps[1:])
    rows = [
        ("training steps after the first", duration(rate_s)),
        ("evaluations on validation", duration(evaluation_s)),
        ("tokens trained on", f"{n_tokens:,}"),
        ("tokens per second, after the first step", f"{rated / rate_s:,.0f}" if rate_s else "–"),
    ]
    if report.cost is None:
        sentences = ("An older version made this run: it recorded neither the time of each phase nor the peak memory.",)
        title = f"Training took {duration(training_s)}"
        return Section("cost", "Cost", title, sentences, tables=(Table("Cost", ("", ""), rows),))
    total = sum(report.cost["phases_s"].values())
    rows += [(f"phase: {name}", duration(seconds)) for name, seconds in report.cost["phases_s"].items()]
    rows += [(f"peak memory, {name}", f"{mib:,.0f} MiB") for name, mib in report.cost["peak_mib"].items()]
    halved = {use: n for use, n in report.cost.get("halved_to_tokens", {}).items() if n is not None}
    rows += [(f"batches did not fit in memory: parts in {use}", f"{n:,} tokens") for use, n in halved.items()]
    resumed = report.cost["resumed_from_step"]
    note = (
        f"The run was resumed after step {resumed:,}: phases are those of the process that finished it."
        if resumed
        else ""
    )
    return Section(
        anchor="cost",
        nav="Cost",
        title=f"The run took {duration(total)} and {report.cost['peak_mib']['process']:,.0f} MiB at most",
        sentences=(note,) if note else (),
        figure="cost",
        reading="Seconds by phase, in the order of the work; training includes evaluations.",
        tables=(Table("Cost", ("", ""), rows),),
    )


def setup(report: Report) -> Section:
    """The command, the data, the machine and every setting: what repeats the run."""
    environment, facts = report.environment, report.data
    packages = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
    plain = {k: v for k, v in environment.items() if k not in ("packages", "command")}
    cells = {k: ", ".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in plain.items()}
    rows = [*((name.replace("_", " "), cell) for name, cell in cells.items()), ("packages", packages)]
    splits = [
        (label, *(f"{facts['classes'][split].get(label, 0):,}" for split in facts["classes"]))
        for label in report.labels
    ]
    splits.append(("all", *(f"{n:,}" for n in facts["rows"].values())))
    return Section(
        anchor="setup",
        nav="Setup",
        title="How to repeat this run",
        sentences=as_sentences(facts.get("warnings", ())),
        tables=(
            Table(f"Rows of each {unit(report)}", (unit(report), *facts["classes"]), splits),
            Table("Environment", ("", ""), rows),
        ),
        code=(
            ("The command", shlex.join(environment.get("command", []))),
            ("config.yaml", report.config.rstrip()),
            ("Fingerprints", json.dumps({k: v for k, v in facts.items() if k.endswith("fingerprint")}, indent=1)),
        ),
    )
