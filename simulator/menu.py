"""`mesh-sim init`: a scenario of the library with one's own numbers, from a menu of questions or from options."""

from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from typing import Any, Final

from rich.console import Console
from rich.prompt import Prompt
from rich.table import Table
from ruamel.yaml import YAML

from broker.errors import ConfigError
from simulator.library import names_and_titles, text_of
from simulator.options import Answers
from simulator.scenario_file import ScenarioError, parse
from simulator.units import nearest

ZONES_MAX: Final = 26
COMMENTS: Final[Mapping[str, str]] = {
    "horizon": "`settle` is left out of all figures; then arrivals go on for `run`, and what is under way may end",
    "groups": "agents: how many, how many jobs each runs at a time, and the zones that they stand in, in turn",
    "work": "arrivals: poisson, even, diurnal, bursty, batch, cron, closed, trace; durations: a time or a law",
    "faults": "crash, hang, drain, zone-down, rolling-upgrade, partition, loss, delay, broker-crash, store-stall ...",
    "objectives": "FIGURE RELATION BOUND; `mesh-sim run FILE` prints the figures that there are",
    "broker": "fidelity: exact, network, broker, wire; and the settings that decide when somebody counts as lost",
    "statistics": "the same seed gives the same days; replications go on until objectives are 5 % precise",
}
"""What stands before the parts of a file that is written."""


def scenario_of(answers: Answers) -> str:
    """The scenario as a file with comments, which `mesh-sim check` accepts.

    Raises:
        ConfigError: no such question, or an answer that does not fit; the text says which would.
    """
    known = names_and_titles()
    if answers.question not in known:
        raise ConfigError(f"there is no scenario `{answers.question}`; {nearest(answers.question, known)}")
    if answers.zones > ZONES_MAX:
        raise ConfigError(f"{answers.zones} zones: from 1 to {ZONES_MAX}")
    yaml: Any = YAML(typ="rt")
    yaml.width = 110
    tree = yaml.load(text_of(answers.question))
    _apply(tree, answers)
    for part, comment in COMMENTS.items():
        if part in tree:
            tree.yaml_set_comment_before_after_key(part, before=f"\n{comment}")
    stream = StringIO()
    yaml.dump(tree, stream)
    text = stream.getvalue()
    try:
        parse(text, answers.question)
    except ScenarioError as error:
        raise ConfigError(f"these answers do not fit the scenario: {str(error).partition(': ')[2]}") from error
    return text


def _apply(tree: Any, answers: Answers) -> None:
    pool = next(iter(tree["groups"].values()))["agents"]
    work = next(iter(tree["work"].values()))
    if answers.rate:
        work["arrivals"] = {"poisson": answers.rate}
    if answers.duration:
        work["duration"] = {"exponential": answers.duration}
    if answers.agents:
        pool["count"] = answers.agents
    if answers.slots:
        pool["slots"] = answers.slots
    if answers.zones:
        pool["spread"] = [f"zone-{chr(ord('a') + number)}" for number in range(answers.zones)]
    if answers.p99:
        bound = f"{next(iter(tree['work']))}.latency.p99 < {answers.p99}"
        kept = [text for text in tree["objectives"] if ".latency.p99 " not in text]
        tree["objectives"][:] = [bound, *kept]


ASKED: Final[Mapping[str, str]] = {
    "rate": "How many jobs arrive (such as 40/s or 6/h)",
    "duration": "How long one takes, on average (such as 400 ms)",
    "agents": "How many agents",
    "slots": "How many jobs each runs at a time",
    "zones": "In how many zones",
    "p99": "Of a hundred jobs, 99 are done within (such as 2 s)",
}


def ask(console: Console) -> Answers:
    """Put the questions of the menu to a person, until the answers fit. An empty answer is the library's own."""
    known = names_and_titles()
    table = Table("", "scenario", "question", box=None)
    for number, (name, title) in enumerate(known.items(), 1):
        table.add_row(str(number), name, title)
    console.print(table)
    names = list(known)
    while True:
        said = Prompt.ask("Which one (a number or a name)", console=console, default="steady").strip()
        name = names[int(said) - 1] if said.isdecimal() and 1 <= int(said) <= len(names) else said
        if name in known:
            break
        console.print(f"there is no scenario `{name}`; {nearest(name, known)}")
    answers = Answers(name)
    for key, question in ASKED.items():
        answers = _asked(console, answers, key, question)
    return answers


def _asked(console: Console, answers: Answers, key: str, question: str) -> Answers:
    while True:
        said = Prompt.ask(f"{question}, [dim]or Enter for the scenario's own[/]", console=console, default="").strip()
        if not said:
            return answers
        if key in ("agents", "slots", "zones") and (not said.isdecimal() or said == "0"):
            console.print(f"`{said}` is not a number from 1", markup=False)
            continue
        try:
            given: dict[str, Any] = {key: int(said) if said.isdecimal() else said}
            changed = replace(answers, **given)
            scenario_of(changed)
        except ConfigError as error:
            console.print(str(error), markup=False)
        else:
            return changed
