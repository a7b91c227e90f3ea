"""Defects in what drives a dispatcher: commits, batches, sessions on the broker's side."""

from collections.abc import Callable
from typing import Any

from broker.dispatch.batch import Batcher
from broker.dispatch.messages import AttemptFinished
from simulator.fuzz.broker import BrokerProcess
from tests.mutants import Mutant

Turn = Callable[[BrokerProcess], None]


def _before_commit(release: Callable[[BrokerProcess, Any], None]) -> Callable[[Turn], Turn]:
    def make(turn: Turn) -> Turn:
        def hasty(self: BrokerProcess) -> None:
            before = self._batcher.pending
            turn(self)
            pending = self._batcher.pending
            if pending is not None and pending is not before:
                release(self, pending)

        return hasty

    return make


def _answer(broker: BrokerProcess, batch: Any) -> None:
    for reply in batch.replies():
        broker.waiting.pop(reply.ticket)(reply)
    for effects in batch.effects.values():
        effects.replies.clear()


def _order(broker: BrokerProcess, batch: Any) -> None:
    streams = {peer.session: stream for stream, peer in broker.peers.items()}
    written: dict[Any, None] = {}
    for send in batch.sends():
        stream = streams.get(send.session)
        if stream is not None:
            broker.peers[stream].writer.order(send)
            written[stream] = None
    for stream in written:
        broker._write(stream)
    for effects in batch.effects.values():
        effects.sends.clear()


def _timers_never(run: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, now_us, touched, lag_us: None


def _drops_outcomes(events: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def lossy(self: BrokerProcess, peer: Any, frame: Any) -> list[Any]:
        return [one for one in events(self, peer, frame) if not isinstance(one, AttemptFinished)]

    return lossy


def _forgets_known(known: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, event: event


MUTANTS = (
    Mutant(
        "acknowledge-before-commit",
        "driver",
        "P1",
        "submitters are answered before their job is on disk",
        BrokerProcess,
        "_turn",
        _before_commit(_answer),
    ),
    Mutant(
        "dispatch-before-commit",
        "driver",
        "inv03",
        "agents are given attempts that are not on disk",
        BrokerProcess,
        "_turn",
        _before_commit(_order),
    ),
    Mutant("timers-never-fire", "driver", "liveness", "deadlines pass unseen", Batcher, "_fire_timers", _timers_never),
    Mutant(
        "outcomes-dropped",
        "driver",
        "liveness",
        "outcomes on a live stream are lost; only those in a Hello arrive",
        BrokerProcess,
        "_events",
        _drops_outcomes,
    ),
    Mutant(
        "store-not-asked",
        "driver",
        "P7",
        "a submission is not looked up in the store: the same again makes a second job",
        BrokerProcess,
        "_known",
        _forgets_known,
    ),
)
