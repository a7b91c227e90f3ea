"""The tables: one schema for SQLite and PostgreSQL, the source of every statement and every migration.

A job is one lean row, because a row more or an index more on the hot path costs more than all of the dispatcher
(ADR 0006). The columns of `job` are those of `JobRow`, then what the dispatcher never sees. Times are engine time in
microseconds; 0 stands for "none" in numbers, "" in texts, and only the bytes of a payload or a result may be NULL:
there are none, or they are in `blob`.

A change here needs a migration in `broker.store.migrations.versions`; a test compares the two.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from broker.dispatch.model import FINAL_STATES, Admin

# Comparisons, not `state NOT IN (...)`: SQLite would make a table of the list for every row that it writes, which is
# 10 us a job of 24 (measured at a batch of 256).
IS_LIVE: Final = " AND ".join(f"state <> '{state}'" for state in sorted(FINAL_STATES))
"""Condition of the index of live jobs. A query must carry the same words, or SQLite does not use the index."""
IS_FINISHED: Final = "finished_us > 0"
IS_WRONG: Final = "(state = 'dead' OR state = 'failed' OR state = 'held')"
"""Condition of the index of what people look for after something went wrong: few rows among very many."""
HAS_KEY: Final = "idempotency_key <> ''"
IS_REPEAT: Final = "requeued_from <> 0"
IS_KEPT: Final = f"admin <> '{Admin.REMOVED}'"
IS_REMOVED: Final = f"admin = '{Admin.REMOVED}'"
IS_THERE: Final = "removed_us = 0"
"""Condition of the names of organisations and groups: who is removed stays known by number, the name is free."""

# Only a column that is exactly INTEGER PRIMARY KEY is SQLite's row number, which saves an index.
_ROW_NO: Final = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _bytes(name: str, *, nullable: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=nullable)


organisation = Table(
    "organisation",
    metadata,
    Column("org_no", _ROW_NO, primary_key=True),
    _text("slug"),
    _text("display_name"),
    _number("created_us"),
    _text("description"),
    _number("removed_us"),
    Index("organisation_slug", "slug", unique=True, sqlite_where=text(IS_THERE), postgresql_where=text(IS_THERE)),
    # Numbers are in job keys and rows of history: that of a removed one must never come back.
    sqlite_autoincrement=True,
)

agent_group = Table(
    "agent_group",
    metadata,
    Column("group_no", _ROW_NO, primary_key=True),
    Column("org_no", BigInteger, ForeignKey("organisation.org_no"), nullable=False),
    _text("slug"),
    _text("display_name"),
    _text("description"),
    _text("kind"),
    Column("central_logging", Boolean, nullable=False),
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
    Column("prefetch", Double, nullable=False),
    _number("removed_us"),
    Index(
        "agent_group_slug",
        "org_no",
        "slug",
        unique=True,
        sqlite_where=text(IS_THERE),
        postgresql_where=text(IS_THERE),
    ),
    sqlite_autoincrement=True,
)

environment = Table(
    "environment",
    metadata,
    Column("environment_no", _ROW_NO, primary_key=True),
    Column("org_no", BigInteger, ForeignKey("organisation.org_no"), nullable=False),
    _text("slug"),
    _text("display_name"),
    _text("description"),
    _number("target_group_no"),
    _number("created_us"),
    UniqueConstraint("org_no", "slug", name="environment_slug"),
    sqlite_autoincrement=True,
)

environment_group = Table(
    "environment_group",
    metadata,
    Column("environment_no", BigInteger, ForeignKey("environment.environment_no"), nullable=False),
    Column("group_no", BigInteger, ForeignKey("agent_group.group_no"), nullable=False),
    _number("place"),
    PrimaryKeyConstraint("environment_no", "group_no"),
)

agent = Table(
    "agent",
    metadata,
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
    PrimaryKeyConstraint("group_no", "agent_no"),
    # Whoever was removed stays known by number; the name is free again.
    Index(
        "agent_id_in_group",
        "group_no",
        "agent_id",
        unique=True,
        sqlite_where=text(IS_KEPT),
        postgresql_where=text(IS_KEPT),
    ),
    Index("agent_removed", "group_no", "admin_us", sqlite_where=text(IS_REMOVED), postgresql_where=text(IS_REMOVED)),
)

agent_words = Table(
    "agent_words",
    metadata,
    _number("group_no"),
    _number("agent_no"),
    _text("display_name"),
    _text("description"),
    PrimaryKeyConstraint("group_no", "agent_no"),
)

request = Table(
    "request",
    metadata,
    Column("request_no", _ROW_NO, primary_key=True),
    _number("org_no"),
    _text("request_id"),
    _bytes("digest"),
    _text("kind"),
    _number("group_no"),
    _number("number"),
    _number("expires_us"),
    UniqueConstraint("org_no", "request_id", name="request_id_in_organisation"),
    Index("request_expiry", "expires_us"),
)

mesh = Table("mesh", metadata, Column("mesh_id", Text, primary_key=True))

operation_policy = Table(
    "operation_policy",
    metadata,
    _number("group_no"),
    _number("no"),
    Column("exclusive", Boolean, nullable=False),
    _text("on_loss"),
    _number("failures_max"),
    _number("crashes_max"),
    _number("bounces_max"),
    _number("backoff_first_us"),
    _number("backoff_max_us"),
    _number("cancel_grace_us"),
    _number("running_max"),
    PrimaryKeyConstraint("group_no", "no"),
)

label_set = Table(
    "label_set",
    metadata,
    _number("group_no"),
    _number("labels_no"),
    _text("operation"),
    _text("labels"),
    PrimaryKeyConstraint("group_no", "labels_no"),
)

job = Table(
    "job",
    metadata,
    Column("job_key", _ROW_NO, primary_key=True, autoincrement=False),
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
    # Unique in its group, not in the mesh: an id that another organisation has used must not be felt by anyone else.
    Index("job_id_in_group", "job_id", "group_no", unique=True),
    Index("job_live", "group_no", "job_key", sqlite_where=text(IS_LIVE), postgresql_where=text(IS_LIVE)),
    Index(
        "job_finished", "group_no", "finished_us", sqlite_where=text(IS_FINISHED), postgresql_where=text(IS_FINISHED)
    ),
    Index("job_wrong", "group_no", "job_key", sqlite_where=text(IS_WRONG), postgresql_where=text(IS_WRONG)),
    Index(
        "job_business_key", "group_no", "idempotency_key", sqlite_where=text(HAS_KEY), postgresql_where=text(HAS_KEY)
    ),
    Index("job_repeat", "requeued_from", sqlite_where=text(IS_REPEAT), postgresql_where=text(IS_REPEAT)),
)

blob = Table(
    "blob",
    metadata,
    _number("job_key"),
    _text("kind"),
    _bytes("content"),
    PrimaryKeyConstraint("job_key", "kind"),
)

attempt = Table(
    "attempt",
    metadata,
    _number("job_key"),
    _number("attempt"),
    _number("agent_no"),
    _number("assigned_us"),
    _number("started_us"),
    _number("ended_us"),
    _text("ending"),
    _text("code"),
    PrimaryKeyConstraint("job_key", "attempt"),
)

transition = Table(
    "transition",
    metadata,
    Column("transition_no", _ROW_NO, primary_key=True),
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
    Index("transition_job", "job_key"),
    sqlite_autoincrement=True,
)

submission_key = Table(
    "submission_key",
    metadata,
    _number("group_no"),
    _text("key"),
    _number("job_key"),
    _bytes("digest"),
    _number("expires_us"),
    PrimaryKeyConstraint("group_no", "key"),
    Index("submission_key_expiry", "expires_us"),
)

group_epoch = Table(
    "group_epoch",
    metadata,
    Column("group_no", _ROW_NO, primary_key=True, autoincrement=False),
    _number("epoch"),
    # The highest ever given, kept here because retention removes the job that had it.
    _number("acceptance_no"),
)

broker_batch = Table(
    "broker_batch",
    metadata,
    Column("broker_id", Text, primary_key=True),
    _number("seq"),
    _number("at_us"),
)
