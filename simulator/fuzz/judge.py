"""What is judged from outside: what was committed, what was answered and what really ran.

The invariants look into the dispatcher (`simulator.fuzz.judged.JudgedDispatcher`); nothing here does, but for the end,
when nothing may be left.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

from agent_stub.session import AgentSession
from broker.dispatch import reasons
from broker.dispatch.batch import Batch
from broker.dispatch.messages import (
    AcceptOutcome,
    AgentNoticed,
    AssignJob,
    CancelRequested,
    EndSession,
    GroupRemoval,
    JobSubmitted,
    RefuseOutcome,
    RejectAgent,
    Reply,
    RequestDone,
    Send,
    StopReason,
    Transition,
    WelcomeAgent,
)
from broker.dispatch.model import (
    FINAL_STATES,
    Admin,
    AgentNo,
    DrainEnd,
    DrainThen,
    JobKey,
    JobState,
    OnLoss,
    OperationPolicy,
)
from broker.dispatch.rows import AgentRow, JobRow, KeyRow, Writes
from simulator.fuzz.agent import Journal
from simulator.fuzz.broken import LIVENESS, BrokenPromiseError, expect
from simulator.fuzz.broker import BrokerProcess, Caller, Peer
from simulator.fuzz.chronicle import Chronicle
from simulator.fuzz.course import OPERATOR, SUBMITTER

REMEMBERED: Final = 8
"""So many processes of an agent that were taken over from stay away (ADR 0012)."""
_GIVEN_UP: Final = ("lost", "not_listed", "incarnation_ended", "accept_timeout", "left")
_CHOICES: Final = {StopReason.DRAIN_REQUEUE, reasons.KILLED, StopReason.DISABLED, StopReason.REMOVED}
"""Reasons of transitions that an operator must have chosen for the agent."""
_CHOSEN: Final = {DrainThen.REQUEUE: StopReason.DRAIN_REQUEUE, DrainThen.KILL: reasons.KILLED}
"""What follows from what an operator chooses for the deadline of a drain."""


def _together(claims: Iterable[str], said: Iterable[str]) -> set[str]:
    """The labels of an agent: what operators said of it wins over what it claims under the same key."""
    named = {label.partition("=")[0]: label for label in claims}
    return {*(named | {label.partition("=")[0]: label for label in said}).values()}


class Runner(Protocol):
    """A process of an agent, as it is judged at the end."""

    process: str
    session: AgentSession


class Judge:
    """Hears of every commit, and cancels jobs for whoever wants that. Its methods raise BrokenPromiseError.

    `asked` is what submitters said, by job id. `ended` are the final states by job, `taken` how often each outcome was
    accepted, `chosen` the reasons that operators gave for the end of work, by agent, `cancelled` what somebody was told
    to be, `same_keys` the jobs that those were told who said the key of a submission under another id.
    """

    def __init__(self, chronicle: Chronicle, journal: Journal) -> None:
        self.asked: dict[bytes, JobSubmitted] = {}
        self.ended: dict[JobKey, JobState] = {}
        self.chosen: set[tuple[AgentNo, str]] = set()
        self.cancelled: set[JobKey] = set()
        self._cancel_asked: set[JobKey] = set()
        self.same_keys: list[JobKey] = []
        self._chronicle = chronicle
        self._journal = journal
        self.taken: Counter[tuple[JobKey, int]] = Counter()
        self._endings: list[tuple[JobKey, int, str, int]] = []
        self._admins: dict[AgentNo, Admin] = {}
        self._policies: dict[JobKey, OperationPolicy] = {}
        self._by_hand: set[JobKey] = set()
        self._said: dict[AgentNo, tuple[str, ...]] = {}
        self._wanted: dict[JobKey, frozenset[str]] = {}
        self._is_removed = False
        self._epoch = 0
        self._taken_over: dict[AgentNo, list[bytes]] = {}
        self._stopped: dict[AgentNo, bytes] = {}
        self._attempts: dict[JobKey, int] = {}
        self._places: dict[JobKey, int] = {}

    @property
    def needless(self) -> list[tuple[JobKey, int, str]]:
        """Attempts that the broker knew to run and gave up although nobody asked for it: (job, attempt, why)."""
        return [one[:3] for one in self._endings if one[2] in _GIVEN_UP and one[3]]

    def cancel(self, broker: BrokerProcess, key: JobKey) -> None:
        """Somebody cancels a job, and is answered or not."""
        self._cancel_asked.add(key)
        broker.ask(lambda ticket: CancelRequested(ticket, key, SUBMITTER), partial(self._note_cancelled, key))

    def _note_cancelled(self, key: JobKey, reply: Reply) -> None:
        if isinstance(reply, RequestDone):
            self.cancelled.add(key)

    def choose(self, agent: AgentNo, then: DrainThen) -> None:
        """An operator chooses what is to follow at the deadline of a drain."""
        if then in _CHOSEN:
            self.chosen.add((agent, _CHOSEN[then]))

    # --- what is committed ------------------------------------------------------------------------------------------

    def on_commit(self, broker: BrokerProcess, batch: Batch) -> None:
        """A batch is on disk, and will be seen."""
        sends = list(batch.sends())
        rows = [row for writes in batch.writes.values() for row in writes.agents]
        self._note_drained(rows, batch)
        fits, allowed = self._fits(rows), self._allowed(rows)
        for writes in batch.writes.values():
            self._on_writes(broker, writes)
        for send in sends:  # an assignment and its end may share a batch: look before the notices
            if isinstance(send, AssignJob):
                self._on_assign(send, broker.sessions[send.session].caller, fits, allowed)
        for notice in batch.notices():
            if isinstance(notice, Transition):
                self._on_transition(notice, broker)
            elif isinstance(notice, AgentNoticed):
                self._chronicle.count(f"agent {notice.why}")
        for send in sends:
            self._on_send(send)
        self._on_sessions(broker, sends)
        self._is_removed |= any(isinstance(reply, GroupRemoval) for reply in batch.replies())

    def _on_writes(self, broker: BrokerProcess, writes: Writes) -> None:
        if self._is_removed and writes.inserts:
            raise BrokenPromiseError("P5", f"a removed group takes {writes.inserts}")
        for job in writes.inserts:
            self._policies[job.job_key] = broker.stored.policies[job.policy_no]
            if job.job_id in self.asked:
                self._on_insert(job, self.asked[job.job_id], writes.keys, broker.policy.keys_us)
        for key, content in writes.checkpoints.items():
            self._on_checkpoint(key, content)
        for row in writes.attempts:
            self._endings.append((row.job_key, row.attempt, row.ending, row.started_us))
            self._chronicle.count(f"attempt {row.ending}")

    def _on_insert(self, row: JobRow, asked: JobSubmitted, keys: Iterable[KeyRow], keys_us: int) -> None:
        """What is stored is what was asked for: its times count from its acceptance, or from its wished start."""
        accepted_us, start_us = row.accepted_us, row.accepted_us + asked.delay_us
        wanted = {
            "operation": asked.operation,
            "level": asked.level,
            "fairness": asked.fairness,
            "order_us": start_us,
            "not_before_us": start_us if asked.delay_us else 0,
            "schedule_by_us": start_us + asked.schedule_to_start_us if asked.schedule_to_start_us else 0,
            "run_timeout_us": asked.run_timeout_us,
            "total_by_us": accepted_us + asked.total_timeout_us if asked.total_timeout_us else 0,
        }
        self._wanted[row.job_key] = frozenset(asked.labels)
        wrong = {name: getattr(row, name) for name, value in wanted.items() if getattr(row, name) != value}
        expect(not wrong, "P1", f"job {row.job_key} is stored with {wrong}, submitted as {wanted}")
        found = [(key.key, key.expires_us) for key in keys if key.job_key == row.job_key]
        due = [(asked.idempotency_key, accepted_us + keys_us)] if asked.idempotency_key else []
        expect(found == due, "P7", f"keys of job {row.job_key} are stored as {found}, not as {due}")

    def _allowed(self, rows: Sequence[AgentRow]) -> Callable[[AgentNo], bool]:
        """Whether an agent was enabled at some time in the batch; takes in what the batch says of agents."""
        enabled = {row.agent_no for row in rows if row.admin == Admin.ENABLED}
        disabled = {no for no, admin in self._admins.items() if admin is not Admin.ENABLED} - enabled
        self._admins.update((row.agent_no, Admin(row.admin)) for row in rows)
        return lambda no: no not in disabled

    def _fits(self, rows: Sequence[AgentRow]) -> Callable[[Caller, frozenset[str]], bool]:
        """Whether a caller had some labels at some time in the batch; takes in what the batch says of agents."""
        said: dict[AgentNo, list[tuple[str, ...]]] = {row.agent_no: [self._said.get(row.agent_no, ())] for row in rows}
        for row in rows:
            said[row.agent_no].append(row.labels)
            self._said[row.agent_no] = row.labels

        def fits(caller: Caller, wanted: frozenset[str]) -> bool:
            spoken = said.get(caller.number) or [self._said.get(caller.number, ())]
            return any(wanted <= _together(caller.labels, one) for one in spoken)

        return fits

    def _note_drained(self, rows: Sequence[AgentRow], batch: Batch) -> None:
        """Which processes are drained to stop: those whose agent drains no more, and nobody has taken that back."""
        told = [(one.agent, one.why) for one in batch.notices() if isinstance(one, AgentNoticed)]
        admins = dict(self._admins)
        for row in rows:
            no, before = row.agent_no, admins.get(row.agent_no)
            admins[no] = Admin(row.admin)
            is_drained = (before, admins[no], row.drain_ends) == (Admin.DRAINING, Admin.ENABLED, DrainEnd.STOP)
            if is_drained and (no, "drained") in told and (no, "enabled") not in told:
                self._stopped[no] = row.incarnation
            elif self._stopped.get(no) != row.incarnation or row.admin != Admin.ENABLED:
                self._stopped.pop(no, None)  # another process has come, or an operator has said something else

    def stay(self, broker: BrokerProcess) -> set[tuple[AgentNo, bytes]]:
        """The processes that were drained to stop, and are still connected."""
        return self._stopped.items() & {(peer.agent, peer.incarnation) for peer in broker.peers.values()}

    def _on_checkpoint(self, key: JobKey, content: object) -> None:
        """A checkpoint of an earlier attempt never takes the place of what a later one may say.

        That none is forgotten is judged where it is written: `simulator.fuzz.judged`.
        """
        attempt = int(content) if isinstance(content, bytes) else 0
        self._chronicle.count("checkpoint kept")
        if key in self.ended:
            raise BrokenPromiseError("P4", f"a checkpoint of attempt {attempt} of job {key} is stored after the end")
        latest = self._attempts.get(key, 0)
        expect(attempt >= latest, "P4", f"a checkpoint of attempt {attempt} of job {key} is stored during {latest}")

    def _on_assign(
        self,
        send: AssignJob,
        caller: Caller,
        fits: Callable[[Caller, frozenset[str]], bool],
        allowed: Callable[[AgentNo], bool],
    ) -> None:
        if send.job_key in self.ended:  # not `expect`: the words cost more than the question
            raise BrokenPromiseError("P4", f"{send} after the end")
        if send.job_key in self.cancelled:
            raise BrokenPromiseError("P2", f"{send} after the job was cancelled")
        if self._is_removed:
            raise BrokenPromiseError("P5", f"{send} after the group was removed")
        self._attempts[send.job_key] = send.attempt
        no, wanted = caller.number, self._wanted.get(send.job_key, frozenset())
        if not allowed(no):
            raise BrokenPromiseError("P5", f"job {send.job_key} is given to agent {no}, which is not on")
        if not fits(caller, wanted):
            raise BrokenPromiseError("inv04", f"job {send.job_key} is given to agent {no}, which is not {set(wanted)}")

    def _on_transition(self, notice: Transition, broker: BrokerProcess) -> None:
        if notice.job_key in self.ended:
            raise BrokenPromiseError("inv07", f"{notice} after the end")
        self._chronicle.count(f"{notice.to_state}: {notice.reason}")
        where = f" on agent {notice.agent}, attempt {notice.attempt}" if notice.agent else ""
        self._chronicle.note(f"committed: {notice.to_state} ({notice.reason}){where}", notice.job_key)
        if notice.to_state in FINAL_STATES:
            self.ended[notice.job_key] = notice.to_state
            if notice.reason == reasons.RESOLVED:
                self._by_hand.add(notice.job_key)
        if notice.to_state is JobState.CANCELLED:
            self._on_cancelled(notice, broker)
        is_denied = notice.to_state is JobState.DEAD and notice.job_key in self.cancelled
        expect(not is_denied, "P2", f"job {notice.job_key} was cancelled, and is dead ({notice.reason})")
        is_early = notice.reason == reasons.OPERATION_UNKNOWN and notice.at_us < broker.returning_until_us
        expect(not is_early, "P1", f"job {notice.job_key} fails before agents had the time to come back: {notice}")
        place_us = self._places.setdefault(notice.job_key, notice.ready_us)
        if notice.ready_us != place_us:
            raise BrokenPromiseError("inv14", f"job {notice.job_key} lost its place: {notice}")
        is_chosen = notice.reason not in _CHOICES or (notice.agent, notice.reason) in self.chosen
        expect(is_chosen, "P6", f"job {notice.job_key} is {notice.to_state} ({notice.reason}), which nobody chose")
        if notice.to_state is JobState.QUEUED and notice.reason == "agent_lost":
            on_loss = self._policies[notice.job_key].on_loss
            expect(on_loss is OnLoss.RETRY, "P3", f"job {notice.job_key} goes on, its type says {on_loss} at a loss")

    def _on_cancelled(self, notice: Transition, broker: BrokerProcess) -> None:
        """By whom: a start of the broker may have forgotten that, but nobody else has done it."""
        if notice.reason == reasons.GROUP_REMOVED:
            is_true = broker.is_removed and notice.actor == OPERATOR
        else:
            is_true = notice.job_key in self._cancel_asked and notice.actor in (SUBMITTER, "")
        who = notice.actor or "nobody"
        expect(is_true, "P2", f"job {notice.job_key} is cancelled ({notice.reason}) by {who}, who did not ask for it")

    def _on_send(self, send: Send) -> None:
        if isinstance(send, AcceptOutcome):
            self.taken[send.job_key, send.attempt] += 1
        elif isinstance(send, RefuseOutcome):
            self._chronicle.count(f"refused: {send.reason}")
            self._chronicle.note(f"outcome of attempt {send.attempt} is refused: {send.reason}", send.job_key)
        elif isinstance(send, RejectAgent):
            self._chronicle.count(f"rejected: {send.code}")

    def _on_sessions(self, broker: BrokerProcess, sends: Sequence[Send]) -> None:
        """A process that another one took over from does not take over again while that one is there."""
        if self._epoch != broker.epoch:
            self._epoch = broker.epoch
            self._taken_over.clear()
        ended: Peer | None = None  # in the step that the next Welcome is of
        for send in sends:
            if isinstance(send, EndSession) and send.reason == "taken_over":
                ended = broker.sessions[send.session]
            elif isinstance(send, WelcomeAgent):
                before, ended, peer = ended, None, broker.sessions[send.session]
                taken_over = self._taken_over.setdefault(peer.agent, [])
                if before is None:  # nobody of this name was there
                    self._taken_over[peer.agent] = [one for one in taken_over if one != peer.incarnation]
                    continue
                text = f"two processes of agent {peer.agent} take its work from one another"
                expect(peer.incarnation not in taken_over[-REMEMBERED:], LIVENESS, text)
                taken_over.append(before.incarnation)

    # --- the end ----------------------------------------------------------------------------------------------------

    def at_end(self, broker: BrokerProcess, agents: Iterable[Runner], accepted: dict[int, JobKey]) -> None:
        """All is quiet: `accepted` are the answers that submitters had."""
        self._nothing_is_left(broker, agents)
        keys = {*accepted.values(), *self.same_keys}
        lost = sorted(keys - set(self.ended))
        expect(not lost, "P1", f"jobs that were accepted are gone: {lost}")
        said = {broker.known[job_id].job_key for job_id in self.asked if job_id in broker.known}
        phantoms = sorted(set(self.ended) - said - keys)
        expect(not phantoms, "P7", f"jobs that nobody submitted: {phantoms}")
        expect(len(set(accepted.values())) == len(accepted), "P7", "two submissions were told the same job")
        twice = [one for one, count in self.taken.items() if count > 1]
        expect(not twice, "P4", f"outcomes accepted twice: {twice}")
        self._results_are_true(broker)

    def _nothing_is_left(self, broker: BrokerProcess, agents: Iterable[Runner]) -> None:
        ledger = broker.dispatcher.ledger
        left = [(job.key, job.state, job.phase, job.agent) for job in ledger.jobs.values()]
        expect(not left, LIVENESS, f"jobs never ended: {left}")
        held = {one.process: one.session.held for one in agents if not one.session.is_idle}
        expect(not held, LIVENESS, f"agents hold attempts for ever: {held}")
        occupied = {one.agent_id: one.held for one in ledger.agents.values() if one.held}
        expect(not occupied, LIVENESS, f"slots are taken for ever: {occupied}")
        stay = self.stay(broker)
        expect(not stay, LIVENESS, f"processes that were drained to stop never do: {stay}")

    def _results_are_true(self, broker: BrokerProcess) -> None:
        """What is stored as a result was made by the job's last attempt, which did succeed."""
        for key, state in self.ended.items():
            row = broker.stored.finished.get(key)
            expect(row is not None, "P1", f"job {key} was told to be {state}, and is not stored so")
            if row is None or state is not JobState.SUCCEEDED or key in self._by_hand:
                continue
            expect((key, row.attempt) in self.taken, "P4", f"job {key} succeeded, and no outcome of it was accepted")
            is_true = (key, row.attempt) in self._journal.succeeded
            expect(is_true, "P4", f"attempt {row.attempt} of job {key} never succeeded")
            result = broker.stored.results.get(key)
            is_own = isinstance(result, bytes) and result.startswith(f"{(key, row.attempt)}".encode())
            expect(is_own, "P4", f"the result of attempt {row.attempt} of job {key} is {result!r}")
