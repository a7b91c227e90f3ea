"""The contract type that the table of layers is written in: *these modules may import only that*.

import-linter's own types say what is forbidden; what they do not name is allowed. The table says what is allowed, so
a package that is added later is refused until somebody gives it a row. Only direct imports are looked at: what is
imported has a row of its own.

Names may be in parentheses (the module may be missing) and may end in `!` (the module without what is below it).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """Modules that import of this project only what is allowed, and of the rest only what is not forbidden.

    Options:
        importers: modules, each with all below it, that this contract is about. They may import one another's insides
            only if that is allowed too; each may always import what is below itself.
        allowed: modules of this project, each with all below it, that they may import.
        apart: modules below the importers, each with all below it, that have a row of their own instead.
        forbidden: top-level modules of the standard library or of other distributions that they may not import.
        standard_library_only: whether other distributions are forbidden altogether.
    """

    importers = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField())
    apart = fields.ListField(subfield=fields.StringField(), default=[])
    forbidden = fields.ListField(subfield=fields.StringField(), default=[])
    standard_library_only = fields.BooleanField(default=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Broken when an importer that must exist is missing, or imports what it may not."""
        missing: list[str] = []
        broken: list[tuple[str, str, tuple[int, ...]]] = []
        for importer in cast("list[str]", self.importers):
            modules = list(_members(graph, importer))
            if not modules and not _is_optional(importer):
                missing.append(importer)
            for module in modules:
                if not _is_within(module, cast("list[str]", self.apart)):
                    broken += self._broken_by(graph, module, importer)
        return ContractCheck(kept=not missing and not broken, metadata={"missing": missing, "broken": sorted(broken)})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line for each import, with the lines it stands in."""
        for name in check.metadata["missing"]:
            output.print_error(f"Missing module: {name}")
        for importer, imported, lines in check.metadata["broken"]:
            numbers = ", ".join(map(str, lines))
            output.print_error(f"{importer} may not import {imported} (l.{numbers})", bold=False)
        output.new_line()

    def _broken_by(self, graph: ImportGraph, module: str, importer: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if not self._may_import(imported, importer):
                details = graph.get_import_details(importer=module, imported=imported)
                yield module, imported, tuple(sorted(detail["line_number"] for detail in details))

    def _may_import(self, imported: str, importer: str) -> bool:
        top = imported.partition(".")[0]
        if top in cast("list[str]", self.session_options["root_packages"]):
            return _is_within(imported, [importer, *cast("list[str]", self.allowed)])
        if top in cast("list[str]", self.forbidden):
            return False
        return not cast("bool", self.standard_library_only) or top in sys.stdlib_module_names


def exceptions(configuration: dict[str, Any]) -> int:
    """How many imports and modules the contracts of a parsed `pyproject.toml` leave out of what they check."""
    contracts = configuration.get("tool", {}).get("importlinter", {}).get("contracts", [])
    return sum(len(contract.get(key, [])) for contract in contracts for key in ("ignore_imports", "exhaustive_ignores"))


def _is_optional(name: str) -> bool:
    return name.startswith("(")


def _members(graph: ImportGraph, name: str) -> Iterator[str]:
    root = name.strip("()")
    alone = root.endswith("!")
    root = root.rstrip("!")
    if root in graph.modules:
        yield root
        if not alone:
            yield from sorted(graph.find_descendants(root))


def _is_within(module: str, names: Iterable[str]) -> bool:
    for name in names:
        root = name.strip("()")
        if module == root.rstrip("!") or (not root.endswith("!") and module.startswith(f"{root}.")):
            return True
    return False
