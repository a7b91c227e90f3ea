"""Every order in which all can happen in a small mesh: depth first, each state once, until there is no more.

A state is judged by all promises and invariants in the step that leads to it. Of two that go on alike
(`simulator.fuzz.digest`) one is looked into. Liveness is judged at the end: from every state there must be a way,
without another fault, to where all work has ended. As nothing that can happen again and again is put off for ever, that
is to say that it does end.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from simulator.fuzz import copies
from simulator.fuzz.bounds import Bounds, Choice
from simulator.fuzz.broken import CRASH, LIVENESS, BrokenPromiseError
from simulator.fuzz.digest import digest
from simulator.fuzz.small import SmallMesh

NO_STATE: Final = -1


@dataclass(slots=True)
class Found:
    """What a search came to. `broken` is the promise that does not hold, `path` the choices that break it."""

    bounds: Bounds
    states: int = 0
    transitions: int = 0
    ends: int = 0
    """States in which all work has ended."""
    is_complete: bool = False
    broken: str = ""
    text: str = ""
    path: list[Choice] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)


class Search:
    """One search; `run` it once.

    Args:
        bounds: how large the mesh is.
        states_max: give up with so many states; 0: never.
    """

    def __init__(self, bounds: Bounds, states_max: int = 0) -> None:
        self.found = Found(bounds)
        self._states_max = states_max
        self._numbers: dict[bytes, int] = {}
        self._ways: list[tuple[int, Choice | None]] = []
        """How each state was first reached: from which, by what."""
        self._before: list[list[int]] = []
        """From which states each is reached without a fault."""
        self._ends: list[int] = []

    def run(self) -> Found:
        """Look at every state."""
        mesh = SmallMesh(self.found.bounds)
        mesh.connect()
        self._note(mesh, NO_STATE, None)
        stack = [_Branch(mesh, 0)]
        while stack and not self.found.broken:
            branch = stack[-1]
            choice = branch.next()
            if choice is None:
                stack.pop()
                continue
            reached = self._go(branch, choice)
            if reached is not None:
                stack.append(reached)
            if self._states_max and len(self._ways) >= self._states_max:
                return self._summed()
        self.found.is_complete = not self.found.broken
        if self.found.is_complete:
            self._judge_liveness()
        return self._summed()

    def _go(self, branch: _Branch, choice: Choice) -> _Branch | None:
        """Have it happen; the state that it leads to, if that is new and not an end."""
        mesh = branch.mesh
        self.found.transitions += 1
        try:
            mesh.do(choice)
            number = self._note(mesh, branch.number, choice)
            if number is not None and mesh.is_done:
                mesh.judge_end()
                self._ends.append(number)
                number = None
        except BrokenPromiseError as error:
            self._broken(branch.number, choice, error.promise, error.text)
            return None
        except Exception as error:  # noqa: BLE001 - whatever the code under test raises is a finding
            self._broken(branch.number, choice, CRASH, f"{type(error).__name__}: {error}")
            return None
        finally:
            self.found.happened += mesh.chronicle.counts
            mesh.chronicle.counts.clear()
        return None if number is None else _Branch(mesh, number)

    def _note(self, mesh: SmallMesh, before: int, choice: Choice | None) -> int | None:
        """The number of the state, if it is new."""
        key = digest(mesh)
        number = self._numbers.setdefault(key, len(self._ways))
        is_new = number == len(self._ways)
        if is_new:
            self._ways.append((before, choice))
            self._before.append([])
        if choice is not None and not choice.is_fault:
            self._before[number].append(before)
        return number if is_new else None

    def _judge_liveness(self) -> None:
        """Back from all ends: what is not met has no way to one."""
        is_met = bytearray(len(self._ways))
        waiting = deque(self._ends)
        for number in self._ends:
            is_met[number] = True
        while waiting:
            for before in self._before[waiting.popleft()]:
                if not is_met[before]:
                    is_met[before] = True
                    waiting.append(before)
        stuck = is_met.find(0)
        if stuck >= 0:
            before, choice = self._ways[stuck]
            self._broken(before, choice, LIVENESS, "from here the work never ends, whatever happens")

    def _broken(self, before: int, choice: Choice | None, promise: str, text: str) -> None:
        path: list[Choice] = [] if choice is None else [choice]
        while before > 0:
            before, choice = self._ways[before]
            if choice is not None:
                path.append(choice)
        self.found.broken, self.found.text, self.found.path = promise, text, path[::-1]

    def _summed(self) -> Found:
        self.found.states, self.found.ends = len(self._ways), len(self._ends)
        return self.found


def search(bounds: Bounds) -> Found:
    """Every order of one world."""
    return Search(bounds).run()


class _Branch:
    """A state that is looked into. Its choices are played one after the other, each on the mesh as it was here."""

    def __init__(self, mesh: SmallMesh, number: int) -> None:
        self.number = number
        self._left = mesh.in_any_order(mesh.choices())[::-1]
        self._live: SmallMesh | None = mesh  # nobody has gone on with it yet
        self._kept = copies.kept(mesh) if len(self._left) > 1 else b""

    def next(self) -> Choice | None:
        """The choice to play next, if one is left."""
        return self._left.pop() if self._left else None

    @property
    def mesh(self) -> SmallMesh:
        """The mesh in this state, for one choice."""
        mesh, self._live = self._live, None
        return mesh if mesh is not None else copies.restored(self._kept)
