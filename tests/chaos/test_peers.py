from __future__ import annotations

from tests.chaos.peers import opened_of

TABLE = """Seconds,Closed,Pending,Connected,Service Available
0,0,1,0,30
1,19,4,11,30

"""


def test_slow_connections_are_those_that_were_open_and_not_those_that_were_asked_for() -> None:
    assert opened_of(TABLE) == 30
