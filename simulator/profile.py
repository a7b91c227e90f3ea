"""A profile: what was measured of a mesh and of its work, for scenarios to use.

`mesh-sim calibrate` writes it. The part `live` was measured on a machine: what the broker's event loop spends, how long
commits and frames take, what an agent adds to a job. The part `work` is the history of a broker's jobs: when they
arrive in a week, how long they run, how often they fail. A scenario names the file:

    broker: {profile: profile.yaml}                          costs, commits, network, what agents add
    work:
      orders:
        arrivals: {weekly: profile.yaml#orders}              as in the history, minute by minute of the week
        duration: {empirical: profile.yaml#orders}
        failure: profile.yaml#orders

Times of a profile are those of the machine and the load that it was measured on: another machine has another profile.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from broker.errors import ConfigError
from simulator.laws import Law
from simulator.model import Count, Model, PerSecond, Seconds, Share
from simulator.scenario import Commits, Costs
from simulator.units import duration_text, nearest

MINUTES: Final = 7 * 24 * 60
"""Of a week; the first is Monday 00:00 UTC."""
BYTES_MAX: Final = 16 << 20
LINE: Final = 40
"""Texts that are longer stand in a line of their own."""
HEADING: Final = """\
# A profile of a mesh, made by `mesh-sim calibrate`: what was measured, for scenarios to use.
#   broker: {profile: FILE}                       costs, commits, network and agents as in `live`
#   work.NAME.duration: {empirical: FILE#WORK}    how long jobs of `work` ran
#   work.NAME.arrivals: {weekly: FILE#WORK}       when they arrive, minute by minute of the week
#   work.NAME.failure: FILE#WORK                  which share of attempts failed
"""
NOTES: Final = {
    "live": "measured on a machine under load; another machine has other figures",
    "work": "from the history of a broker's jobs; quantiles of how long attempts ran, at equal steps",
    "rate": "load under which it was measured",
    "busy": "share of the processors' time that was used meanwhile, by whomever",
    "costs": "what the broker's event loop spends, by kind of event",
    "turn": "one turn of the engine, whatever it works",
    "submission": "one job that is submitted by itself",
    "report": "one thing that an agent reports",
    "frame": "one frame in or out",
    "connect": "handshake of a new stream (not measured: the default)",
    "commits": "how long a commit takes: quantiles at equal steps, tail included",
    "network": "one way between an agent and the broker over loopback",
    "submit": "from when a program wants to submit until the broker has it",
    "overhead": "what an agent adds to a job besides running it",
    "broker-start": "from starting the process until it answers, without a history to recover",
    "agent-start": "from starting the process until its session has begun",
    "failure": "share of attempts that failed",
    "per-minute": "mean arrivals in each minute of the week, a line an hour, from Monday 00:00 UTC",
    "weeks": "how long the history is, in weeks",
}


class ProfileError(ConfigError):
    """A profile that cannot be used: file, line, what is wrong."""

    reason = "BAD_PROFILE"


class Live(Model):
    """What was measured of a broker and agents as real processes."""

    made_at: str
    seed: int
    jobs: Count
    rate: PerSecond
    busy: Share
    costs: Costs
    commits: Commits
    network: Law
    submit: Law
    overhead: Law
    broker_start: Seconds
    agent_start: Seconds

    @property
    def named(self) -> str:
        """Which run it was, for reports."""
        load = f"{self.jobs} jobs at {self.rate:.4g}/s with seed {self.seed}"
        return f"{load}, {self.made_at}; processors {self.busy:.0%} busy"


class WorkHistory(Model):
    """Jobs of one operation as a broker remembers them."""

    jobs: Count
    weeks: Annotated[float, Field(gt=0)]
    failure: Share
    quantiles: Annotated[tuple[Seconds, ...], Field(min_length=2, max_length=10_001)]
    per_minute: Annotated[
        tuple[Annotated[float, Field(ge=0, le=6e7)], ...],
        Field(min_length=MINUTES, max_length=MINUTES),
        BeforeValidator(lambda hours: [number for hour in hours for number in str(hour).split()]),
        PlainSerializer(lambda rates: [" ".join(f"{rate:g}" for rate in hour) for hour in batched(rates, 60)]),
    ]
    """Written as one text for each hour of the week."""


class Profile(Model):
    """A profile file."""

    version: Literal[1] = 1
    live: Live | None = None
    work: dict[str, WorkHistory] = Field(default_factory=dict)

    def of_work(self, name: str) -> WorkHistory:
        """The history of this work. Raises ProfileError."""
        if name not in self.work:
            raise ProfileError(f"the profile has no work `{name}`; {nearest(name, self.work) if self.work else _EMPTY}")
        return self.work[name]

    def live_part(self) -> Live:
        """What was measured live. Raises ProfileError."""
        if self.live is None:
            raise ProfileError("the profile has no part `live`: run `mesh-sim calibrate FILE` on this machine")
        return self.live


_EMPTY: Final = "it has none: add it with `mesh-sim calibrate FILE --history BROKER`"


def read(path: Path) -> Profile:
    """A profile. Raises ProfileError."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise ProfileError(f"{path}: more than {BYTES_MAX} bytes; this is no profile")
        tree = YAML(typ="rt").load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from error
    except YAMLError as error:
        raise ProfileError(f"{path}: {error}") from error
    if not isinstance(tree, dict):
        raise ProfileError(f"{path}:1: a profile is a mapping; `mesh-sim calibrate` writes one")
    try:
        return Profile.model_validate(_plain(tree))
    except ValidationError as error:
        raise ProfileError("\n".join(_said(path, tree, dict(one)) for one in error.errors())) from error


def place_of(text: str, folder: Path) -> tuple[Path, str]:
    """File and work that `profile.yaml#orders` names; files are beside the scenario. Raises ProfileError."""
    file, hash_, work = text.partition("#")
    if not (file and hash_ and work):
        raise ProfileError(f"`{text}` does not name work of a profile: write `profile.yaml#orders`")
    return (folder / file).resolve(), work


def fill_in(tree: dict[str, Any], folder: Path, refuse: Callable[[list[str], ProfileError], None]) -> None:
    """Put what profiles say into the tree of a scenario, where it names them; what the scenario says itself wins.

    `refuse` is told the place of a name that leads nowhere, and why. What was read is pinned by its digest, so a
    scenario that is written out with it is complete.
    """
    for path, fill in _names_of(tree, folder):
        try:
            fill()
        except ProfileError as error:
            refuse(path, error)


def _names_of(tree: dict[str, Any], folder: Path) -> Iterator[tuple[list[str], Callable[[], None]]]:
    broker = tree.get("broker")
    if isinstance(broker, dict) and isinstance(broker.get("profile"), str):
        yield ["broker", "profile"], partial(_fill_live, tree, broker, folder)
    works = tree.get("work")
    for name, work in works.items() if isinstance(works, dict) else ():
        if not isinstance(work, dict):
            continue
        duration, arrivals = work.get("duration"), work.get("arrivals")
        if isinstance(duration, dict) and isinstance(duration.get("empirical"), str):
            yield ["work", name, "duration"], partial(_fill_duration, duration, folder)
        if isinstance(arrivals, dict) and "weekly" in arrivals:
            yield ["work", name, "arrivals"], partial(_fill_arrivals, arrivals, folder)
        if isinstance(work.get("failure"), str) and "#" in work["failure"]:
            yield ["work", name, "failure"], partial(_fill_failure, work, folder)


def _fill_live(tree: dict[str, Any], broker: dict[str, Any], folder: Path) -> None:
    path = (folder / broker["profile"]).resolve()
    live = read(path).live_part()
    broker["profile"] = {"file": str(path), "sha256": digest_of(path)}
    for key, value in parts_of(live).items():
        section, _, name = key.partition(".")
        into = tree.setdefault(section, {})
        if isinstance(into, dict):
            given = into.get(name)
            if given is None:
                into[name] = value
            elif isinstance(given, dict) and name in ("costs", "commits"):
                into[name] = {**value, **given}


def parts_of(live: Live) -> dict[str, Any]:
    """What of a scenario the live part says, under `section.key`."""
    said = live.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "broker.costs": said["costs"],
        "broker.commits": said["commits"],
        "network.same-zone": said["network"],
        "network.submit": said["submit"],
        "agent.overhead": said["overhead"],
    }


def _fill_duration(duration: dict[str, Any], folder: Path) -> None:
    path, work = place_of(duration["empirical"], folder)
    quantiles = read(path).of_work(work).quantiles
    duration["empirical"] = {"quantiles": [duration_text(value) for value in quantiles]}


def _fill_arrivals(arrivals: dict[str, Any], folder: Path) -> None:
    given = arrivals["weekly"]
    said = {"of": given} if isinstance(given, str) else given
    if isinstance(said, dict) and isinstance(said.get("of"), str):
        path, work = place_of(said["of"], folder)
        read(path).of_work(work)
        rest = {key: value for key, value in said.items() if key != "of"}
        arrivals["weekly"] = {"file": str(path), "work": work, "sha256": digest_of(path), **rest}


def _fill_failure(work: dict[str, Any], folder: Path) -> None:
    path, name = place_of(work["failure"], folder)
    work["failure"] = read(path).of_work(name).failure


def digest_of(path: Path) -> str:
    """What is in the file, shortly. Raises ProfileError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from error


def text_of(profile: Profile) -> str:
    """The profile as YAML, with what its keys mean."""
    tree = _commented(profile.model_dump(mode="json", by_alias=True, exclude_none=True), 0)
    stream = StringIO()
    yaml: Any = YAML(typ="rt")  # its stubs do not know that these can be set
    yaml.width = 110
    yaml.dump(tree, stream)
    return HEADING + stream.getvalue()


def quantiles_law(values: Any) -> Law:
    """A law of these quantiles, in seconds."""
    return Law.model_validate({"empirical": {"quantiles": [duration_text(float(value)) for value in values]}})


def batched(rates: Sequence[float], size: int) -> list[Sequence[float]]:
    """In parts of this size."""
    return [rates[at : at + size] for at in range(0, len(rates), size)]


def _commented(node: Any, indent: int) -> Any:
    if isinstance(node, dict):
        tree = CommentedMap((key, _commented(value, indent + 2)) for key, value in node.items())
        for key in tree:
            if key in NOTES:
                tree.yaml_set_comment_before_after_key(key, before=NOTES[key], indent=indent)
        return tree
    if isinstance(node, list):
        sequence = CommentedSeq(node)
        if not any(" " in item and len(item) > LINE for item in node if isinstance(item, str)):
            sequence.fa.set_flow_style()
        return sequence
    return node


def _plain(node: Any) -> Any:
    """The tree without what it knows of lines."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return next((kind(node) for kind in (int, float, str) if isinstance(node, kind)), node)


def _said(path: Path, tree: Any, error: dict[str, Any]) -> str:
    """`file:line: what is wrong`."""
    line, where = 1, []
    for step in error["loc"]:
        if isinstance(tree, dict) and step in tree:
            line = _lines(tree).key(step)[0] + 1
            tree = tree[step]
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            line = _lines(tree).item(step)[0] + 1
            tree = tree[step]
        where.append(str(step))
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{path}:{line}: {'.'.join(where)}: {message}"


def _lines(tree: Any) -> Any:
    """What ruamel knows of the lines of a mapping or a list."""
    return tree.lc
