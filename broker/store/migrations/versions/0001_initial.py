"""The first schema."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
# There is no `downgrade`: a file of a newer release is refused, and what leads back is a copy of the older file.

ROW_NO: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Written out: a step never changes, whatever becomes of the words that the code uses today.
IS_LIVE: Final = sa.text("state <> 'cancelled' AND state <> 'dead' AND state <> 'failed' AND state <> 'succeeded'")
IS_FINISHED: Final = sa.text("finished_us > 0")
IS_WRONG: Final = sa.text("(state = 'dead' OR state = 'failed' OR state = 'held')")
HAS_KEY: Final = sa.text("idempotency_key <> ''")
IS_REPEAT: Final = sa.text("requeued_from <> 0")
IS_KEPT: Final = sa.text("admin <> 'removed'")
IS_REMOVED: Final = sa.text("admin = 'removed'")
IS_THERE: Final = sa.text("removed_us = 0")


def upgrade() -> None:
    _people()
    _agents()
    _jobs()
    _beside_jobs()
    _fences()


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=nullable)


def _people() -> None:
    op.create_table(
        "organisation",
        sa.Column("org_no", ROW_NO, nullable=False),
        _text("slug"),
        _text("display_name"),
        _number("created_us"),
        _text("description"),
        _number("removed_us"),
        sa.PrimaryKeyConstraint("org_no"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "organisation_slug", "organisation", ["slug"], unique=True, sqlite_where=IS_THERE, postgresql_where=IS_THERE
    )
    op.create_table(
        "agent_group",
        sa.Column("group_no", ROW_NO, nullable=False),
        _number("org_no"),
        _text("slug"),
        _text("display_name"),
        _text("description"),
        _text("kind"),
        sa.Column("central_logging", sa.Boolean(), nullable=False),
        _number("created_us"),
        _text("mode"),
        _text("inactive_jobs"),
        _text("placing"),
        _number("placing_choices"),
        _number("attempts_max"),
        _number("backoff_first_us"),
        _number("backoff_max_us"),
        _number("cancel_grace_us"),
        _number("queue_jobs_max"),
        _number("queue_bytes_max"),
        sa.Column("prefetch", sa.Double(), nullable=False),
        _number("removed_us"),
        sa.ForeignKeyConstraint(["org_no"], ["organisation.org_no"]),
        sa.PrimaryKeyConstraint("group_no"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "agent_group_slug",
        "agent_group",
        ["org_no", "slug"],
        unique=True,
        sqlite_where=IS_THERE,
        postgresql_where=IS_THERE,
    )
    op.create_table(
        "environment",
        sa.Column("environment_no", ROW_NO, nullable=False),
        _number("org_no"),
        _text("slug"),
        _text("display_name"),
        _text("description"),
        _number("target_group_no"),
        _number("created_us"),
        sa.ForeignKeyConstraint(["org_no"], ["organisation.org_no"]),
        sa.PrimaryKeyConstraint("environment_no"),
        sa.UniqueConstraint("org_no", "slug", name="environment_slug"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "environment_group",
        _number("environment_no"),
        _number("group_no"),
        _number("place"),
        sa.ForeignKeyConstraint(["environment_no"], ["environment.environment_no"]),
        sa.ForeignKeyConstraint(["group_no"], ["agent_group.group_no"]),
        sa.PrimaryKeyConstraint("environment_no", "group_no"),
    )


def _agents() -> None:
    op.create_table(
        "agent",
        _number("agent_no"),
        _number("group_no"),
        _text("agent_id"),
        _text("admin"),
        _number("admin_us"),
        _text("admin_actor"),
        _text("admin_reason"),
        _number("admin_due_us"),
        _text("drain_ends"),
        _text("drain_then"),
        _text("link"),
        _number("rank"),
        _number("stray_until_us"),
        _number("created_us"),
        _number("last_connected_us"),
        _bytes("incarnation"),
        _text("labels"),
        sa.PrimaryKeyConstraint("group_no", "agent_no"),
    )
    op.create_index(
        "agent_id_in_group",
        "agent",
        ["group_no", "agent_id"],
        unique=True,
        sqlite_where=IS_KEPT,
        postgresql_where=IS_KEPT,
    )
    op.create_index(
        "agent_removed", "agent", ["group_no", "admin_us"], sqlite_where=IS_REMOVED, postgresql_where=IS_REMOVED
    )
    op.create_table(
        "agent_words",
        _number("group_no"),
        _number("agent_no"),
        _text("display_name"),
        _text("description"),
        sa.PrimaryKeyConstraint("group_no", "agent_no"),
    )
    op.create_table(
        "request",
        sa.Column("request_no", ROW_NO, nullable=False),
        _number("org_no"),
        _text("request_id"),
        _bytes("digest"),
        _text("kind"),
        _number("group_no"),
        _number("number"),
        _number("expires_us"),
        sa.PrimaryKeyConstraint("request_no"),
        sa.UniqueConstraint("org_no", "request_id", name="request_id_in_organisation"),
    )
    op.create_index("request_expiry", "request", ["expires_us"])
    op.create_table(
        "operation_policy",
        _number("group_no"),
        _number("no"),
        sa.Column("exclusive", sa.Boolean(), nullable=False),
        _text("on_loss"),
        _number("failures_max"),
        _number("crashes_max"),
        _number("bounces_max"),
        _number("backoff_first_us"),
        _number("backoff_max_us"),
        _number("cancel_grace_us"),
        _number("running_max"),
        sa.PrimaryKeyConstraint("group_no", "no"),
    )
    op.create_table(
        "label_set",
        _number("group_no"),
        _number("labels_no"),
        _text("operation"),
        _text("labels"),
        sa.PrimaryKeyConstraint("group_no", "labels_no"),
    )


def _jobs() -> None:
    op.create_table(
        "job",
        sa.Column("job_key", ROW_NO, autoincrement=False, nullable=False),
        _bytes("job_id"),
        _number("group_no"),
        _number("environment_no"),
        _text("operation"),
        _number("policy_no"),
        _number("labels_no"),
        _number("level"),
        _text("fairness"),
        _text("limit_key"),
        _bytes("digest"),
        _number("payload_bytes"),
        _number("accepted_us"),
        _number("not_before_us"),
        _number("schedule_by_us"),
        _number("run_timeout_us"),
        _number("total_by_us"),
        _number("requeued_from"),
        _text("state"),
        _text("phase"),
        _number("order_us"),
        _number("attempt"),
        _number("agent_no"),
        _number("assigned_us"),
        _number("started_us"),
        _number("finished_us"),
        _text("code"),
        _text("message"),
        _number("failures"),
        _number("crashes"),
        _number("crashes_alone"),
        _number("bounces"),
        _number("cancel_requested"),
        _text("stop_reason"),
        _text("idempotency_key"),
        _bytes("payload", nullable=True),
        _text("payload_type"),
        _text("metadata"),
        _bytes("result", nullable=True),
        _text("result_type"),
        sa.PrimaryKeyConstraint("job_key"),
    )
    op.create_index(
        "job_finished", "job", ["group_no", "finished_us"], sqlite_where=IS_FINISHED, postgresql_where=IS_FINISHED
    )
    op.create_index("job_id_in_group", "job", ["job_id", "group_no"], unique=True)
    op.create_index("job_live", "job", ["group_no", "job_key"], sqlite_where=IS_LIVE, postgresql_where=IS_LIVE)
    op.create_index("job_wrong", "job", ["group_no", "job_key"], sqlite_where=IS_WRONG, postgresql_where=IS_WRONG)
    op.create_index(
        "job_business_key", "job", ["group_no", "idempotency_key"], sqlite_where=HAS_KEY, postgresql_where=HAS_KEY
    )
    op.create_index("job_repeat", "job", ["requeued_from"], sqlite_where=IS_REPEAT, postgresql_where=IS_REPEAT)


def _beside_jobs() -> None:
    op.create_table(
        "blob", _number("job_key"), _text("kind"), _bytes("content"), sa.PrimaryKeyConstraint("job_key", "kind")
    )
    op.create_table(
        "attempt",
        _number("job_key"),
        _number("attempt"),
        _number("agent_no"),
        _number("assigned_us"),
        _number("started_us"),
        _number("ended_us"),
        _text("ending"),
        _text("code"),
        sa.PrimaryKeyConstraint("job_key", "attempt"),
    )
    op.create_table(
        "transition",
        sa.Column("transition_no", ROW_NO, nullable=False),
        _number("commit_seq"),
        _number("group_no"),
        _number("job_key"),
        _number("attempt"),
        _number("at_us"),
        _text("from_state"),
        _text("to_state"),
        _text("reason"),
        _number("agent_no"),
        _text("actor"),
        sa.PrimaryKeyConstraint("transition_no"),
        sqlite_autoincrement=True,
    )
    op.create_index("transition_job", "transition", ["job_key"])
    op.create_table(
        "submission_key",
        _number("group_no"),
        _text("key"),
        _number("job_key"),
        _bytes("digest"),
        _number("expires_us"),
        sa.PrimaryKeyConstraint("group_no", "key"),
    )
    op.create_index("submission_key_expiry", "submission_key", ["expires_us"])


def _fences() -> None:
    op.create_table(
        "group_epoch",
        sa.Column("group_no", ROW_NO, autoincrement=False, nullable=False),
        _number("epoch"),
        _number("acceptance_no"),
        sa.PrimaryKeyConstraint("group_no"),
    )
    op.create_table(
        "broker_batch", _text("broker_id"), _number("seq"), _number("at_us"), sa.PrimaryKeyConstraint("broker_id")
    )
    op.create_table("mesh", _text("mesh_id"), sa.PrimaryKeyConstraint("mesh_id"))
