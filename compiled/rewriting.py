"""A module as mypyc takes it: dataclasses become classes with a written `__init__`, and stay what they were outside.

mypyc makes fast classes of `@dataclass` alone or of a written `__init__`; ours hold their fields in slots. It makes a
list of a generator expression, which is the same only where all of it is taken at once. What is not known is refused:
a module that is compiled means what it means.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from compiled.modules import DERIVED

DECORATORS: Final = ("dataclass", "message")
CONSUMERS: Final = frozenset(
    {
        "all",
        "any",
        "dict",
        "extend",
        "frozenset",
        "join",
        "list",
        "max",
        "min",
        "next",
        "prod",
        "set",
        "sorted",
        "sum",
        "tuple",
        "update",
    }
)
"""What takes all of a generator at once, or is told apart by mypyc (`next`)."""


WRITTEN: Final = frozenset({"__init__", "__post_init__", "__eq__", "__hash__", "__repr__"})


class NotCompilableError(Exception):
    """A module has something whose meaning would change when it is compiled."""


@dataclass(slots=True, frozen=True)
class Field:
    """A field of a dataclass: its annotation, its default or what makes that, whether it is shown."""

    name: str
    annotation: ast.expr
    default: ast.expr | None
    factory: ast.expr | None
    is_shown: bool


@dataclass(slots=True, frozen=True)
class Edits:
    """What is changed in a file: lines that go, and what comes behind a line. Lines count from 1."""

    dropped: set[int]
    behind: dict[int, list[str]]
    needs: set[str]
    """What must be imported for it."""

    def drop(self, node: ast.expr | ast.stmt) -> None:
        """These lines go."""
        assert node.end_lineno is not None
        self.dropped.update(range(node.lineno, node.end_lineno + 1))

    def add(self, line: int, *texts: str) -> None:
        """These lines come behind that one."""
        self.behind.setdefault(line, []).extend(texts)

    def of(self, source: str) -> str:
        """The file as it becomes."""
        lines: list[str] = []
        for number, line in enumerate(source.splitlines(), 1):
            if number not in self.dropped:
                lines.append(line)
            lines += self.behind.get(number, ())
        return "\n".join(lines) + "\n"


def rewritten(source: str, name: str) -> str:
    """The module's source for the copy. Raises NotCompilableError, naming file and line."""
    tree = ast.parse(source, name)
    _check_generators(tree, name)
    edits = Edits(set(), {}, set())
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            _rewrite(statement, name, edits)
        elif isinstance(statement, ast.FunctionDef):
            for decorator in statement.decorator_list:
                if isinstance(decorator, ast.Call) and _name_of(decorator.func) == "dataclass_transform":
                    edits.drop(decorator)  # it says something to the type checker, and a native function takes no mark
    if edits.needs:
        imports = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
        edits.add(_last_line(imports[-1]) if imports else 1, *sorted(edits.needs))
    return edits.of(source)


def _check_generators(tree: ast.Module, name: str) -> None:
    taken = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.args and _name_of(node.func) in CONSUMERS
    } | {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Starred)}
    for node in ast.walk(tree):
        if isinstance(node, ast.GeneratorExp) and id(node) not in taken:
            raise NotCompilableError(f"{name}:{node.lineno}: a generator expression that is not taken at once")


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _last_line(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno


def _rewrite(node: ast.ClassDef, name: str, edits: Edits) -> None:
    is_error = any(_name_of(base).endswith("Error") for base in node.bases)
    if is_error or node.name in DERIVED:
        kind = "native_class=False" if is_error else "allow_interpreted_subclasses=True"
        first = node.decorator_list[0] if node.decorator_list else node
        edits.add(first.lineno - 1, f"@mypy_extensions.mypyc_attr({kind})")
        edits.needs.add("import mypy_extensions")
    for decorator in node.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if _name_of(call) in DECORATORS:
            options = {one.arg: ast.literal_eval(one.value) for one in getattr(decorator, "keywords", ())}
            if set(options) - {"slots", "eq", "frozen"} or node.bases or len(node.decorator_list) > 1:
                raise NotCompilableError(f"{name}:{node.lineno}: a dataclass of a kind that is not known here")
            edits.drop(decorator)
            _make_plain(node, name, edits, has_eq=options.get("eq", True), is_frozen=options.get("frozen", False))
            return
    for statement in node.body:
        if isinstance(statement, ast.Assign) and [_name_of(one) for one in statement.targets] == ["__slots__"]:
            edits.needs.add("from compiled.shape import slotted")
            edits.add(_last_line(node), f"slotted({node.name}, {ast.unparse(statement.value)})")


def _make_plain(node: ast.ClassDef, name: str, edits: Edits, *, has_eq: bool, is_frozen: bool) -> None:
    """A plain class in the place of a dataclass, and below it the call that makes it known as one."""
    fields: list[Field] = []
    methods: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            fields.append(_field(statement, name))
            edits.drop(statement)
        elif isinstance(statement, ast.FunctionDef):
            methods.add(statement.name)
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            raise NotCompilableError(f"{name}:{statement.lineno}: a dataclass with more than fields and methods")
    if methods & WRITTEN:
        raise NotCompilableError(f"{name}:{node.lineno}: a dataclass that has what would be written for it")
    first = node.body[0]
    edits.add(
        _last_line(first) if isinstance(first, ast.Expr) else node.lineno,
        *_written(fields, has_eq=has_eq, is_frozen=is_frozen),
    )
    edits.needs.update(
        ("import dataclasses", "import typing", "from compiled.shape import hashed, same, shaped, shown")
    )
    annotations = {one.name: _text_of(one.annotation) for one in fields}
    hidden = tuple(one.name for one in fields if not one.is_shown)
    defaults = ", ".join(f"{one.name!r}: {ast.unparse(one.default)}" for one in fields if one.default is not None)
    factories = ", ".join(f"{one.name!r}: {ast.unparse(one.factory)}" for one in fields if one.factory is not None)
    edits.add(_last_line(node), f"shaped({node.name}, {annotations!r}, {{{defaults}}}, {{{factories}}}, {hidden!r})")


def _field(statement: ast.AnnAssign, name: str) -> Field:
    assert isinstance(statement.target, ast.Name)
    value = statement.value
    if not (isinstance(value, ast.Call) and _name_of(value.func) == "field"):
        return Field(statement.target.id, statement.annotation, value, None, is_shown=True)
    options = {one.arg or "": one.value for one in value.keywords}
    shown = options.pop("repr", None)
    default, factory = options.pop("default", None), options.pop("default_factory", None)
    if options or value.args or (shown is not None and ast.literal_eval(shown)):
        raise NotCompilableError(f"{name}:{statement.lineno}: a field of a kind that is not known here")
    return Field(statement.target.id, statement.annotation, default, factory, is_shown=shown is None)


def _written(fields: list[Field], *, has_eq: bool, is_frozen: bool) -> Iterator[str]:
    """The lines of what `dataclass` would have written."""
    yield "    __dataclass_fields__: typing.ClassVar[dict[str, dataclasses.Field[typing.Any]]]"
    yield f"    def __init__(self, {', '.join(map(_parameter, fields))}) -> None:"
    for one in fields:
        made = (
            one.name if one.factory is None else f"({ast.unparse(one.factory)})() if {one.name} is None else {one.name}"
        )
        yield f"        self.{one.name}: {_type_of(one)} = {made}"
    if not fields:
        yield "        pass"
    if has_eq:
        yield "    def __eq__(self, other: object) -> bool: return same(self, other)"
    if has_eq and is_frozen:
        yield "    def __hash__(self) -> int: return hashed(self)"
    yield "    def __repr__(self) -> str: return shown(self)"


def _type_of(one: Field) -> str:
    return ast.unparse(one.annotation)


def _text_of(annotation: ast.expr) -> str:
    """An annotation as text, which it may be already."""
    return str(annotation.value) if isinstance(annotation, ast.Constant) else ast.unparse(annotation)


def _parameter(one: Field) -> str:
    kind = _type_of(one)
    if one.factory is not None:
        return f"{one.name}: '{_text_of(one.annotation)} | None' = None"
    return f"{one.name}: {kind}" if one.default is None else f"{one.name}: {kind} = {ast.unparse(one.default)}"
