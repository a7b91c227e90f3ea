"""Who may write: every group has an epoch that only grows, every broker a number of its newest commit."""

from uuid import uuid4

from sqlalchemy import Connection, case, func, insert, select, update

from broker.dispatch.model import GroupNo
from broker.errors import NotFoundError
from broker.store import schema
from broker.store.base import Ownership

_BATCH = schema.broker_batch
_EPOCH = schema.group_epoch


def take(connection: Connection, broker_id: str, at_us: int) -> Ownership:
    """Raise the epoch of every group; returns what was committed before, so the caller can refuse a clock gone back."""
    newest_us = last_committed_us(connection)
    seq = connection.scalar(select(_BATCH.c.seq).where(_BATCH.c.broker_id == broker_id))
    if seq is None:
        connection.execute(insert(_BATCH).values(broker_id=broker_id, seq=0, at_us=at_us))
    else:
        later_us = case((_BATCH.c.at_us < at_us, at_us), else_=_BATCH.c.at_us)
        connection.execute(update(_BATCH).where(_BATCH.c.broker_id == broker_id).values(at_us=later_us))
    connection.execute(update(_EPOCH).values(epoch=_EPOCH.c.epoch + 1))
    rows = connection.execute(select(_EPOCH.c.group_no, _EPOCH.c.epoch).order_by(_EPOCH.c.group_no))
    epochs = {GroupNo(row.group_no): int(row.epoch) for row in rows}
    return Ownership(batch_seq=seq or 0, last_committed_us=newest_us, epochs=epochs)


def adopt(connection: Connection, group_no: GroupNo) -> int:
    """Raise the epoch of one group and return it."""
    raised = update(_EPOCH).where(_EPOCH.c.group_no == group_no).values(epoch=_EPOCH.c.epoch + 1)
    epoch = connection.scalar(raised.returning(_EPOCH.c.epoch))
    if epoch is None:
        raise NotFoundError(f"there is no agent group number {group_no}", group_no=str(group_no))
    return int(epoch)


def mesh_id(connection: Connection) -> str:
    """Which mesh this is the memory of; chosen by whoever asks first, and copied with the file."""
    found = connection.scalar(select(schema.mesh.c.mesh_id))
    if found is None:
        found = str(uuid4())
        connection.execute(insert(schema.mesh).values(mesh_id=found))
    return found


def committed_seq(connection: Connection, broker_id: str) -> int:
    """The number of the broker's newest commit; 0 before the first."""
    return connection.scalar(select(_BATCH.c.seq).where(_BATCH.c.broker_id == broker_id)) or 0


def last_committed_us(connection: Connection) -> int:
    """The highest engine time of all commits of all brokers; 0 before the first."""
    return connection.scalar(select(func.max(_BATCH.c.at_us))) or 0
