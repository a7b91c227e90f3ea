"""The data of the demonstration: orders in a CSV file, the table that they go to, and the judge of what arrived.

The file holds what such files hold: spaces around names, mixed case, amounts as text. The right content of every row
is known from the generator and not from reading the file, so a mistake in the transformation would be seen.
"""

import csv
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple

COLUMNS: Final = ("order_no", "reference", "customer", "country", "amount", "pieces")
CUSTOMERS: Final = ("Ana Silva", "Bo Lindqvist", "Chidi Okafor", "Dora Novak", "Émile Laurent", "Fatima Zahra")
COUNTRIES: Final = ("br", "se", "ng", "hr", "fr", "ma")

MAPPING: Final = {
    "order_no": {"column": "order_no", "type": "integer"},
    "reference": {"column": "reference"},
    "customer": {"column": "customer", "strip": True, "upper": True},
    "country": {"column": "country", "strip": True, "upper": True},
    "cents": {"column": "amount", "type": "integer", "multiply": "100", "strip": True},
    "pieces": {"column": "pieces", "type": "integer"},
}

TARGET_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
CREATE TABLE orders (
    order_no INTEGER PRIMARY KEY, reference TEXT NOT NULL, customer TEXT NOT NULL, country TEXT NOT NULL,
    cents INTEGER NOT NULL, pieces INTEGER NOT NULL
);
-- A job that ran twice writes its rows twice: this is how often, and whether it changed any.
CREATE TABLE rewritten (order_no INTEGER NOT NULL, is_changed INTEGER NOT NULL);
CREATE TRIGGER order_rewritten AFTER UPDATE ON orders BEGIN
    INSERT INTO rewritten VALUES (new.order_no, (old.reference, old.customer, old.country, old.cents, old.pieces)
        IS NOT (new.reference, new.customer, new.country, new.cents, new.pieces));
END;
"""


class Order(NamedTuple):
    """An order as it must stand in the target, in the order of the table's columns.

    `reference` belongs to the order and is not the key: two rows with one reference are one order twice.
    """

    order_no: int
    reference: str
    customer: str
    country: str
    cents: int
    pieces: int


@dataclass(frozen=True, slots=True)
class Source:
    """The CSV file with its orders, cut into parts: the bytes of each."""

    path: Path
    orders: Sequence[Order]
    parts: Sequence[tuple[int, int]]

    @property
    def cents(self) -> int:
        """The sum of all amounts."""
        return sum(order.cents for order in self.orders)


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the judge found. `wrong` are orders with other content and rows of no order; `changed` were right once."""

    expected: int
    target: int
    missing: int
    duplicates: int
    wrong: int
    rewritten: int
    changed: int
    source_cents: int
    target_cents: int

    @property
    def is_right(self) -> bool:
        """Whether every order is there exactly once, and right."""
        return (
            self.target == self.expected
            and not (self.missing or self.duplicates or self.wrong or self.changed)
            and self.source_cents == self.target_cents
        )


def write_source(path: Path, count: int, part_rows: int, seed: int) -> Source:
    """Write the file. Lines have different lengths, so parts are found by their bytes."""
    generator = random.Random(seed)
    orders = list(_orders(count, generator))
    lines = [_line(order, generator) for order in orders]
    header = f"{','.join(COLUMNS)}\n".encode()
    path.write_bytes(header + b"".join(lines))
    starts = [*accumulate((len(line) for line in lines), initial=len(header))]
    edges = [*starts[:-1:part_rows], starts[-1]]
    return Source(path, orders, list(pairwise(edges)))


def _orders(count: int, generator: random.Random) -> Iterator[Order]:
    for order_no in range(1, count + 1):
        yield Order(
            order_no,
            f"R{generator.getrandbits(48):012x}-{order_no}",
            generator.choice(CUSTOMERS).upper(),
            generator.choice(COUNTRIES).upper(),
            generator.randrange(1, 500_000),
            generator.randrange(1, 100),
        )


def _line(order: Order, generator: random.Random) -> bytes:
    """The order as a careless system exports it."""
    customer = generator.choice((str.title, str.lower, str.upper))(order.customer)
    fields = (
        str(order.order_no),
        order.reference,
        f"{' ' * generator.randrange(3)}{customer}{' ' * generator.randrange(3)}",
        generator.choice((str.lower, str.upper))(order.country),
        f"{' ' * generator.randrange(2)}{order.cents // 100}.{order.cents % 100:02d}",
        str(order.pieces),
    )
    assert not any(mark in field for field in fields for mark in f'{csv.excel.delimiter}"\n')
    return f"{','.join(fields)}\n".encode()


def make_target(path: Path) -> None:
    """An empty target database."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TARGET_SCHEMA)


def judge(source: Source, target: Path) -> Arrived:
    """Compare the target, row by row, with what the generator meant."""
    with closing(sqlite3.connect(target)) as database:
        rows = [Order(*row) for row in database.execute("SELECT * FROM orders")]
        rewritten, changed = database.execute("SELECT count(*), coalesce(sum(is_changed), 0) FROM rewritten").fetchone()
    right = {order.order_no: order for order in source.orders}
    found = {row.order_no: row for row in rows}
    return Arrived(
        expected=len(right),
        target=len(rows),
        missing=len(right.keys() - found.keys()),
        duplicates=len(rows) - len({row.reference for row in rows}),
        wrong=sum(right.get(row.order_no) != row for row in rows),
        rewritten=rewritten,
        changed=changed,
        source_cents=source.cents,
        target_cents=sum(row.cents for row in rows),
    )
