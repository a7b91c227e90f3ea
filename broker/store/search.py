"""Finding jobs among millions: every search walks along an index, a bounded number of rows at a time.

A group's jobs lie in the order of their keys, which is that of their acceptance: times of acceptance never go down
along the keys, so a span of time is a range of keys. Shorter paths lead to what people look for: live jobs, those that
went wrong, those with a business key, and finished ones in the order of their end. What a path does not settle is
compared row by row, in windows; when a search has looked at as many rows as it may, the page ends there and says where
to go on. Nothing is sorted, and no row is skipped or told twice when jobs come and go meanwhile.
"""

from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select, text, true, tuple_

from broker.dispatch.model import ACCEPTANCE_BITS, FINAL_STATES, GroupNo, JobKey, JobState, group_of
from broker.dispatch.rows import JobRow
from broker.store import schema, statements
from broker.store.base import EVER, JobCount, JobPage, JobQuery, JobRecord, Place, Span
from broker.store.history import LISTED, record_of

WINDOW_ROWS: Final = 5_000
"""Rows that one statement looks at."""
FETCHED_MAX: Final = 64
"""Rows that are fetched of one group at a time when there are several."""
WRONG_STATES: Final = frozenset({JobState.DEAD, JobState.FAILED, JobState.HELD})

_JOB: Final = schema.job.c

Condition = ColumnElement[bool]


def list_jobs(connection: Connection, query: JobQuery) -> JobPage:
    """A page of jobs in one order over all groups of the query."""
    scans = _scans(connection, query)
    records: list[JobRecord] = []
    rows_left = query.rows_max
    first = min if query.is_ascending else max
    while scans:
        scan = first(scans, key=_Scan.frontier)
        if scan.found and len(records) < query.limit:
            records.append(scan.found.pop())
        elif scan.found or rows_left <= 0:
            return JobPage(records, scan.frontier())
        else:
            rows_left -= scan.advance(connection)
        if scan.is_over:
            scans.remove(scan)
    return JobPage(records, None)


def count_jobs(connection: Connection, query: JobQuery) -> JobCount:
    """How many jobs there are, group after group; `start` is the place at which an earlier count stopped."""
    counted, rows_left = 0, query.rows_max
    for group_no in sorted(query.groups):
        here = group_of(query.start.job_key) if query.start is not None else group_no
        if group_no < here:
            continue
        scan = _Scan(query, group_no)
        scan.begin(connection, query.start if group_no == here else None)
        while not scan.is_over:
            if rows_left <= 0:
                return JobCount(counted, scan.frontier())
            jobs, rows = scan.count(connection)
            counted += jobs
            rows_left -= rows
    return JobCount(counted, None)


class Path(NamedTuple):
    """A way along an index: the condition that leads onto it, and what of the query is left to compare."""

    condition: Condition
    rest: Condition | None


def path_of(query: JobQuery, group_no: GroupNo) -> Path:
    """The shortest way to the jobs of one group. The conditions of partial indexes are repeated word for word."""
    in_group = _JOB.group_no == group_no
    rest = _rest_of(query, group_no)
    states = frozenset(map(JobState, query.states))
    if query.is_by_finish:
        return Path(and_(in_group, text(schema.IS_FINISHED)), _and(rest | _states_of(query)))
    if query.idempotency_key:
        has_key = and_(in_group, _JOB.idempotency_key == query.idempotency_key, text(schema.HAS_KEY))
        rest.pop("idempotency_key")
        return Path(has_key, _and(rest | _states_of(query)))
    if states and states <= WRONG_STATES:
        return Path(and_(in_group, text(schema.IS_WRONG)), _and(rest | _states_of(query)))
    if states and not states & FINAL_STATES:
        is_all = states == frozenset(JobState) - FINAL_STATES
        return Path(and_(in_group, text(schema.IS_LIVE)), _and(rest if is_all else rest | _states_of(query)))
    return Path(true(), _and(rest | _states_of(query)))


def _rest_of(query: JobQuery, group_no: GroupNo) -> dict[str, Condition]:
    """What must be compared besides the state, by field."""
    wanted: dict[str, Condition] = {
        field: _JOB[column] == value
        for field, column, value in (
            ("environment", "environment_no", query.environment_no),
            ("operation", "operation", query.operation),
            ("code", "code", query.code),
            ("fairness", "fairness", query.fairness),
            ("idempotency_key", "idempotency_key", query.idempotency_key or None),
        )
        if value is not None
    }
    if query.agents is not None:
        wanted["agent"] = _JOB.agent_no.in_(query.agents[group_no])
    if query.is_by_finish and query.accepted != EVER:
        wanted["accepted"] = _within(_JOB.accepted_us, query.accepted)
    if not query.is_by_finish and query.finished != EVER:
        wanted["finished"] = and_(_JOB.finished_us > 0, _within(_JOB.finished_us, query.finished))
    return wanted


def _states_of(query: JobQuery) -> dict[str, Condition]:
    return {"state": _JOB.state.in_(query.states)} if query.states else {}


def _within(column: ColumnElement[int], span: Span) -> Condition:
    return and_(column >= span.since_us, column < span.until_us)


def _and(conditions: dict[str, Condition]) -> Condition | None:
    return and_(*conditions.values()) if conditions else None


class Stretch(NamedTuple):
    """The rows of a group from `low` on, before `high`: by time and key, or by key alone in the order of acceptance."""

    low: Place
    high: Place

    def before(self, place: Place, *, is_ascending: bool) -> "Stretch":
        """The part that a scan comes to before this place."""
        return self._replace(high=place) if is_ascending else self._replace(low=_next(place))

    def onwards(self, place: Place, *, is_ascending: bool) -> "Stretch":
        """The part that begins with this place."""
        return self._replace(low=place) if is_ascending else self._replace(high=_next(place))

    def condition(self, *, is_by_finish: bool) -> Condition:
        """Whether a row is in it."""
        if not is_by_finish:
            return and_(_JOB.job_key >= self.low.job_key, _JOB.job_key < self.high.job_key)
        at = tuple_(_JOB.finished_us, _JOB.job_key)
        return and_(at >= tuple_(*self.low), at < tuple_(*self.high))


def _next(place: Place) -> Place:
    return Place(place.at_us, JobKey(place.job_key + 1))


class _Scan:
    """One group's part of a search. `found` are records not taken yet, the next one last; `ahead` is what was not
    looked at yet, None at the end.
    """

    def __init__(self, query: JobQuery, group_no: GroupNo) -> None:
        self._query = query
        self._group_no = group_no
        self._path = path_of(query, group_no)
        self._chunk = query.limit + 1 if len(query.groups) == 1 else min(query.limit + 1, FETCHED_MAX)
        self.found: list[JobRecord] = []
        self._ahead: Stretch | None = None

    def begin(self, connection: Connection, start: Place | None) -> None:
        """Stand at the first row, if there is one."""
        self._ahead = _stretch_of(connection, self._query, self._group_no, start)
        self._go_on(self._row_after(connection, 0))

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more."""
        return not self.found and self._ahead is None

    def frontier(self) -> Place:
        """Nothing that is not taken yet comes before this place. Not at the end."""
        if self.found:
            return self._place(self.found[-1].row)
        assert self._ahead is not None
        if self._query.is_ascending:
            return self._ahead.low
        high = self._ahead.high
        return Place(high.at_us, JobKey(high.job_key - 1))

    def advance(self, connection: Connection) -> int:
        """Look for records in the next rows; returns how many rows that were, about."""
        window, edge = self._window(connection)
        statement = self._ordered(self._wanted(select(*LISTED), window)).limit(self._chunk)
        rows = connection.execute(statement).all()
        self.found = [record_of(row) for row in reversed(rows)]
        if len(rows) < self._chunk:
            self._go_on(edge)
        else:
            last = self._place(self.found[0].row)
            self._go_on(last._replace(job_key=JobKey(last.job_key + (1 if self._query.is_ascending else -1))))
        return len(rows) + 1 if self._path.rest is None else self._rows_of(connection, window, edge)

    def count(self, connection: Connection) -> tuple[int, int]:
        """Count the next rows instead of reading them; returns how many are wanted, and of how many."""
        window, edge = self._window(connection, is_always=True)
        counted: int = connection.scalar(self._wanted(select(func.count()).select_from(schema.job), window)) or 0
        self._go_on(edge)
        return counted, self._rows_of(connection, window, edge)

    def _rows_of(self, connection: Connection, window: Stretch, edge: Place | None) -> int:
        """How many rows of the path a window holds: the last one of a group may be nearly empty."""
        if edge is not None:
            return WINDOW_ROWS
        inside = window.condition(is_by_finish=self._query.is_by_finish)
        statement = select(func.count()).select_from(schema.job).where(self._path.condition, inside)
        return max(1, connection.scalar(statement) or 0)

    def _window(self, connection: Connection, *, is_always: bool = False) -> tuple[Stretch, Place | None]:
        """The rows to look at next, and the row behind them. Where all are wanted, the limit of the page is enough."""
        assert self._ahead is not None
        if self._path.rest is None and not is_always:
            return self._ahead, None
        edge = self._row_after(connection, WINDOW_ROWS)
        if edge is None:
            return self._ahead, None
        return self._ahead.before(edge, is_ascending=self._query.is_ascending), edge

    def _go_on(self, place: Place | None) -> None:
        if place is None or self._ahead is None:
            self._ahead = None
        else:
            self._ahead = self._ahead.onwards(place, is_ascending=self._query.is_ascending)

    def _row_after(self, connection: Connection, skipped: int) -> Place | None:
        """The place of the row of the path that comes so many rows later."""
        assert self._ahead is not None
        at = _JOB.finished_us if self._query.is_by_finish else _JOB.accepted_us
        inside = self._ahead.condition(is_by_finish=self._query.is_by_finish)
        statement = self._ordered(select(at, _JOB.job_key).where(self._path.condition, inside))
        row = connection.execute(statement.limit(1).offset(skipped)).first()
        return None if row is None else Place(*row)

    def _wanted(self, statement: Select[Any], window: Stretch) -> Select[Any]:
        inside = window.condition(is_by_finish=self._query.is_by_finish)
        statement = statement.where(self._path.condition, inside)
        return statement if self._path.rest is None else statement.where(self._path.rest)

    def _ordered(self, statement: Select[Any]) -> Select[Any]:
        columns = (_JOB.finished_us, _JOB.job_key) if self._query.is_by_finish else (_JOB.job_key,)
        return statement.order_by(*(column if self._query.is_ascending else column.desc() for column in columns))

    def _place(self, row: JobRow) -> Place:
        return Place(row.finished_us if self._query.is_by_finish else row.accepted_us, row.job_key)


def _scans(connection: Connection, query: JobQuery) -> list[_Scan]:
    scans = [_Scan(query, group_no) for group_no in query.groups]
    for scan in scans:
        scan.begin(connection, query.start)
    return [scan for scan in scans if not scan.is_over]


def _stretch_of(connection: Connection, query: JobQuery, group_no: GroupNo, start: Place | None) -> Stretch:
    """All that a scan of the group may come to, from `start` on."""
    if query.is_by_finish:
        since, until = query.finished
        all_of = Stretch(Place(max(since, 1), JobKey(0)), Place(until, JobKey(0)))
        return all_of if start is None else all_of.onwards(start, is_ascending=query.is_ascending)
    low, high = group_no << ACCEPTANCE_BITS, (group_no + 1) << ACCEPTANCE_BITS
    since, until = query.accepted
    low = _key_at(connection, low, high, since) if since else low
    high = _key_at(connection, low, high, until) if until != EVER.until_us else high
    if start is not None:
        border = _border(connection, low, high, start if query.is_ascending else _next(start))
        low, high = (border, high) if query.is_ascending else (low, border)
    return Stretch(Place(since, JobKey(low)), Place(until, JobKey(high)))


def _border(connection: Connection, low: int, high: int, place: Place) -> int:
    """The first key of the group that is not before this place, which may be one of another group."""
    if low <= place.job_key <= high:
        return place.job_key
    return _key_at(connection, low, high, place.at_us if place.job_key < low else place.at_us + 1)


def _key_at(connection: Connection, low: int, high: int, at_us: int) -> int:
    """A key of the range before which all jobs were accepted earlier, and from which on none: found by halving."""
    newest = connection.exec_driver_sql(statements.LAST_ACCEPTED, (low, high)).first()
    if newest is None or newest.accepted_us < at_us:
        return high
    high = newest.job_key
    while low < high:
        middle = (low + high) // 2
        row = connection.exec_driver_sql(statements.FIRST_ACCEPTED, (middle, high)).first()
        if row is None or row.accepted_us >= at_us:
            high = middle
        else:
            low = row.job_key + 1
    return high
