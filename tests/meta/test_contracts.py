"""The allow-list of imports: what it lets through, what it refuses, and that no package of ours escapes it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from grimp import ImportGraph

from tests.meta.check import ROOT
from tests.meta.contracts import OnlyContract, exceptions


def imports(*pairs: str) -> ImportGraph:
    """A graph of direct imports, each written `importer > imported`."""
    graph = ImportGraph()
    graph.add_module("core")
    for pair in pairs:
        importer, imported = pair.split(" > ")
        for module in (importer, imported):
            graph.add_module(module, is_squashed=not module.startswith(("core", "edge", "new")))
        graph.add_import(importer=importer, imported=imported, line_number=7, line_contents="import it")
    return graph


def broken(graph: ImportGraph, **options: Any) -> list[str]:
    """The imports that a contract for `core` refuses in `graph`."""
    session = {"root_packages": ["core", "edge", "new"]}
    contract = OnlyContract("row", session, {"importers": ["core"], "allowed": [], **options})
    check = contract.check(graph, verbose=False)
    found = [f"{importer} > {imported}" for importer, imported, _ in check.metadata["broken"]]
    assert check.kept is not bool(found or check.metadata["missing"])
    return found


def test_contract_refuses_a_package_that_nobody_allowed() -> None:
    assert broken(imports("core.a > new.thing")) == ["core.a > new.thing"]


def test_contract_lets_a_package_import_its_own_insides_and_what_is_allowed() -> None:
    assert broken(imports("core.a > core.b", "core.a > edge.c"), allowed=["edge.c"]) == []


def test_contract_refuses_the_sibling_of_what_is_allowed() -> None:
    assert broken(imports("core.a > edge.cc"), allowed=["edge.c"]) == ["core.a > edge.cc"]


def test_contract_allows_what_is_below_a_name_unless_it_ends_in_an_exclamation_mark() -> None:
    graph = imports("core.a > edge.c.d")

    assert broken(graph, allowed=["edge.c"]) == []
    assert broken(graph, allowed=["edge.c!"]) == ["core.a > edge.c.d"]


def test_contract_leaves_out_what_has_a_row_of_its_own() -> None:
    graph = imports("core.a > edge.c", "core.apart.b > edge.c")

    assert broken(graph, apart=["core.apart"]) == ["core.a > edge.c"]


def test_contract_refuses_other_distributions_when_only_the_standard_library_may_be_used() -> None:
    graph = imports("core.a > heapq", "core.a > grpc")

    assert broken(graph, standard_library_only="True") == ["core.a > grpc"]
    assert broken(graph) == []


def test_contract_refuses_what_is_forbidden_of_the_standard_library() -> None:
    assert broken(imports("core.a > time"), forbidden=["time"]) == ["core.a > time"]


def test_contract_is_broken_when_an_importer_is_missing_unless_it_is_in_parentheses() -> None:
    graph = imports("core.a > heapq")
    session = {"root_packages": ["core"]}
    needed = OnlyContract("row", session, {"importers": ["core.gone"], "allowed": []})
    optional = OnlyContract("row", session, {"importers": ["(core.gone)"], "allowed": []})

    assert needed.check(graph, verbose=False).metadata["missing"] == ["core.gone"]
    assert optional.check(graph, verbose=False).kept


@pytest.mark.parametrize("key", ["ignore_imports", "exhaustive_ignores"])
def test_exceptions_are_counted_when_a_contract_leaves_something_out(key: str) -> None:
    contracts = [{"id": "a", key: ["x -> y", "x -> z"]}, {"id": "b"}]

    assert exceptions({"tool": {"importlinter": {"contracts": contracts}}}) == 2


def test_every_package_that_is_delivered_is_under_contract() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())

    delivered = configuration["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(delivered) == set(configuration["tool"]["importlinter"]["root_packages"])
