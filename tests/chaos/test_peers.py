from __future__ import annotations

from tests.chaos.peers import opened_of

SAID = """
slow HTTP test status on 0th second:

initializing:        0
pending:             1
connected:           0
error:               0
closed:              0
service available:   YES
slow HTTP test status on 5th second:

initializing:        0
pending:             4
connected:           11
error:               2
closed:              19
service available:   YES
Test ended on 5th second
"""


def test_slow_connections_are_those_that_were_open_and_not_those_that_were_asked_for() -> None:
    assert opened_of(SAID) == 30
