"""The smallest schedule that breaks the same: strikes of faults, jobs and the rest are left out one after the other.

All faults of a run draw from one generator, so that a course with one fault fewer is another schedule altogether. What
is left out are the strikes of the run itself: the others strike when they did, and do what they did.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from simulator.fuzz.campaign import play
from simulator.fuzz.course import Course

Part = TypeVar("Part")


class Shrinking:
    """`best` is the smallest course so far that breaks `promise`, `played` how many were tried.

    `tell` is called after each of them. Whoever interrupts `run` has `best` all the same.
    """

    def __init__(self, course: Course, promise: str, tell: Callable[["Shrinking"], None] = lambda _: None) -> None:
        self.best = course
        self.played = 0
        self._promise = promise
        self._tell = tell

    def run(self) -> Course:
        """Leave out what is not needed, again and again until nothing more can be."""
        mesh, _ = play(self.best)
        if mesh is not None:
            self._breaks(replace(self.best, strikes=tuple(mesh.strikes)))
        before = None
        while before is not self.best:
            before = self.best
            self._thin(self.best.strikes or (), lambda kept: replace(self.best, strikes=kept))
            self._thin(self.best.submitted, self._with_jobs)
            while any(self._breaks(smaller) for smaller in _plainer(self.best)):
                pass
        return self.best

    def _with_jobs(self, kept: tuple[int, ...]) -> Course:
        return replace(self.best, left_out=frozenset(range(self.best.jobs)) - frozenset(kept))

    def _breaks(self, course: Course) -> bool:
        self.played += 1
        _, violation = play(course)
        is_same = violation is not None and violation.promise == self._promise
        if is_same:
            self.best = course
        self._tell(self)
        return is_same

    def _thin(self, parts: tuple[Part, ...], course_with: Callable[[tuple[Part, ...]], Course]) -> None:
        """Leave out all, halves, quarters, ... and in the end single ones, the latest first."""
        size = len(parts)
        while size:
            end = len(parts)
            while end > 0:
                fewer = parts[: max(0, end - size)] + parts[end:]
                if self._breaks(course_with(fewer)):
                    parts = fewer
                end -= size
            size //= 2


def shrink(course: Course, promise: str) -> Course:
    """The smallest course found that breaks the same promise."""
    return Shrinking(course, promise).run()


def _plainer(course: Course) -> Iterator[Course]:
    for feature in course.features:
        yield replace(course, features=tuple(one for one in course.features if one != feature))
    if course.agents > 1:
        yield replace(course, agents=course.agents - 1)
    if course.failing:
        yield replace(course, failing=0.0)
    if course.slow_stops:
        yield replace(course, slow_stops=0.0)
