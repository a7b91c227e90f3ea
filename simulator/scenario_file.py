"""Scenario files: YAML to `Scenario` and back, each fault of a file with its line and the nearest right form."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from broker.errors import ConfigError
from simulator.incidents import KINDS
from simulator.objectives import ObjectiveError, check_names
from simulator.objectives import parse as parse_objective
from simulator.profile import ProfileError, fill_in
from simulator.scenario import Scenario
from simulator.streams import Streams
from simulator.summary import AGENT_FIGURES_MAX
from simulator.units import nearest
from simulator.workload import arrivals_us

BYTES_MAX: Final = 4 << 20
NODES_MAX: Final = 100_000
DEPTH_MAX: Final = 30
_OF: Final = re.compile(r"(?:fault (?P<fault>\d+) |work `(?P<work>[^`]+)`:|group `(?P<group>[^`]+)`:)")
_Step = str | int
_Refuse = Callable[[Sequence[_Step], Exception | str], NoReturn]


class ScenarioError(ConfigError):
    """A scenario file that cannot be used: one line `file:line: what is wrong` for each fault that was found."""

    reason = "BAD_SCENARIO"


def load(path: Path) -> Scenario:
    """Read a scenario. Files that it names are beside it. Raises ScenarioError."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise ScenarioError(f"{path}: more than {BYTES_MAX} bytes; this is no scenario")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ScenarioError(f"{path}: cannot be read: {why}") from error
    return parse(text, str(path), path.parent)


def parse(text: str, name: str = "scenario", folder: Path = Path()) -> Scenario:
    """A scenario from its text; `name` stands in messages. Raises ScenarioError."""
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        problem = str(error.problem or error.context).split(" with value")[0]
        raise ScenarioError(f"{name}:{line}: {problem}") from error
    if not isinstance(tree, dict):
        raise ScenarioError(f"{name}:1: a scenario is a mapping: horizon, groups, work ...; `mesh-sim init` writes one")
    plain = _plain(tree, _Budget(name))
    fill_in(plain, folder, partial(_refuse_profile, name, tree))
    try:
        _pin_traces(plain, folder, partial(_refuse, name, tree))
        scenario = Scenario.model_validate(plain)
        _try_arrivals(scenario, partial(_refuse, name, tree))
        _try_objectives(scenario, partial(_refuse, name, tree))
        return scenario
    except ValidationError as error:
        lines = sorted({_line_of(name, tree, dict(one)) for one in error.errors()}, key=_number_in)
        raise ScenarioError("\n".join(lines)) from error


def dump(scenario: Scenario) -> str:
    """The scenario as YAML with every default written out; `parse` gives the same scenario again."""
    stream = StringIO()
    yaml: Any = YAML(typ="safe", pure=True)  # its stubs know neither of these two
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 110
    yaml.dump(scenario.resolved(), stream)
    return stream.getvalue()


def schema() -> dict[str, Any]:
    """JSON schema of a scenario, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "jobmesh scenario",
        **Scenario.model_json_schema(by_alias=True, mode="validation"),
    }


def _refuse_profile(name: str, tree: Any, path: list[str], error: ProfileError) -> None:
    """Raise ScenarioError for a place that names a profile which cannot be used."""
    _refuse(name, tree, path, error)


def _refuse(name: str, tree: Any, path: Sequence[_Step], error: Exception | str) -> NoReturn:
    """Raise ScenarioError for a place of the file."""
    *_, line = [1, *(at for _, at in _walk(tree, path))]
    raise ScenarioError(f"{name}:{line}: {'.'.join(map(str, path))}: {error}")


def _try_arrivals(scenario: Scenario, refuse: _Refuse) -> None:
    """Read traces and cron entries, whose faults show only then. Raises ScenarioError."""
    for work, one in scenario.work.items():
        try:
            for _ in arrivals_us(one.arrivals, Streams(0, 0), 1, 1):
                break
        except (ConfigError, UnicodeDecodeError) as error:
            refuse(["work", work, "arrivals"], error)


def _try_objectives(scenario: Scenario, refuse: _Refuse) -> None:
    """Refuse objectives that are none, or name nothing. Raises ScenarioError."""
    if not scenario.objectives:
        return
    known = figures_of(scenario)
    for number, text in enumerate(scenario.objectives):
        try:
            check_names([parse_objective(text)], known)
        except ObjectiveError as error:
            refuse(["objectives", number], error)


def figures_of(scenario: Scenario) -> set[str]:
    """The names of all figures that a run of the scenario has: those of a moment of it, without its faults."""
    from simulator.world import simulate

    tree = scenario.resolved()
    tree |= {"faults": [], "objectives": [], "horizon": {"run": "1 ms", "finish": 0}}
    tree["broker"]["fidelity"] = "exact"
    for group in tree["groups"].values():
        group.pop("need", None)
        for pool in group["agents"]:  # large groups have the same figures, whatever their size
            pool["count"] = min(pool["count"], AGENT_FIGURES_MAX + 1)
    return set(simulate(Scenario.model_validate(tree), seed=0).figures)


def _pin_traces(tree: dict[str, Any], folder: Path, refuse: _Refuse) -> None:
    """Name traces by their whole path and content, so that results are kept under what was read."""
    work = tree.get("work")
    for name, one in work.items() if isinstance(work, dict) else ():
        arrivals = one.get("arrivals") if isinstance(one, dict) else None
        trace = arrivals.get("trace") if isinstance(arrivals, dict) else None
        file = trace.get("file") if isinstance(trace, dict) else trace
        if isinstance(arrivals, dict) and isinstance(file, str):
            path = (folder / file).resolve()
            try:
                arrivals["trace"] = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            except OSError as error:
                refuse(["work", name, "arrivals", "trace"], f"{path} cannot be read: {error.strerror}")


class _Budget:
    """How much of a file is read: aliases of aliases of aliases would be more than any memory holds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = NODES_MAX

    def spend(self, depth: int) -> None:
        """One more node. Raises ScenarioError."""
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            raise ScenarioError(f"{self._name}:1: more than {NODES_MAX} values, or {DEPTH_MAX} deep: no scenario")


def _plain(node: Any, budget: _Budget, depth: int = 0) -> Any:
    """The tree without what it knows of lines."""
    budget.spend(depth)
    if isinstance(node, dict):
        return {str(key): _plain(value, budget, depth + 1) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, budget, depth + 1) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    return next((kind(node) for kind in (int, float, str) if isinstance(node, kind)), str(node))


def _line_of(name: str, tree: Any, error: dict[str, Any]) -> str:
    """`file:line: what is wrong`."""
    path, message = list(error["loc"]), words_of(error)
    of = _OF.match(message)
    if of is not None and not path:
        of_name = ["work", of["work"]] if of["work"] else ["groups", of["group"]]
        path = ["faults", int(of["fault"]) - 1] if of["fault"] else of_name
    where = ".".join(str(step) for step, _ in _walk(tree, path))
    line = 1
    for _, at in _walk(tree, path):
        line = at
    return f"{name}:{line}: {where + ': ' if where else ''}{message}"


def words_of(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, without its place."""
    path = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key `{path[-1]}`; {nearest(str(path[-1]), _keys_at(path[:-1]))}"
        case "missing":
            return f"`{path[-1]}` is missing"
        case "literal_error":
            return f"`{error['input']}` is not known here; it is {error['ctx']['expected']}"
    return str(error["msg"]).removeprefix("Value error, ")


def _walk(tree: Any, path: Sequence[_Step]) -> Iterator[tuple[_Step, int]]:
    """(step, line) of the steps that are in the file; those of alternatives and lists left out are not."""
    for step in path:
        if isinstance(tree, dict) and step in tree:
            yield step, _lines(tree).key(step)[0] + 1
            tree = tree[step]
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            yield step, _lines(tree).item(step)[0] + 1
            tree = tree[step]


def _lines(tree: Any) -> Any:
    """What ruamel knows of the lines of a mapping or a list."""
    return tree.lc


def _number_in(line: str) -> tuple[int, str]:
    match = re.search(r":(\d+): ", line)
    return (int(match[1]) if match else 0, line)


def _keys_at(path: Sequence[_Step]) -> list[str]:
    """The keys that are known at a place of the tree. A fault's path has its kind as third step."""
    if len(path) == 3 and path[0] == "faults":
        return KINDS[str(path[2])].keys()
    whole = schema()
    nodes = [whole]
    for step in path:
        nodes = [found for node in _resolved(whole, nodes) for found in _below(node, step)] or nodes
    return [key for node in _resolved(whole, nodes) for key in node.get("properties", ())]


def _resolved(whole: dict[str, Any], nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """References followed and alternatives laid open."""
    found: list[dict[str, Any]] = []
    for node in nodes:
        if "$ref" in node:
            found += _resolved(whole, [whole["$defs"][node["$ref"].rsplit("/", 1)[-1]]])
        elif "anyOf" in node or "oneOf" in node:
            found += _resolved(whole, [*node.get("anyOf", ()), *node.get("oneOf", ())])
        else:
            found.append(node)
    return found


def _below(node: dict[str, Any], step: _Step) -> Iterator[dict[str, Any]]:
    if isinstance(step, int):
        if "items" in node:
            yield node["items"]
    elif step in node.get("properties", ()):
        yield node["properties"][step]
    else:
        yield from node.get("patternProperties", {}).values()  # names that people choose


def schema_text() -> str:
    """The schema as it is printed."""
    return json.dumps(schema(), indent=1)
