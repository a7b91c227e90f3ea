from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.cli.exits import CommandError
from broker.cli.job_views import carry_out
from mesh_client import BulkSlice, FullError, NotFoundError, RefusedJob


def test_bulk_call_that_breaks_off_says_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    def slices() -> Iterator[BulkSlice]:
        yield BulkSlice(matched=3, changed=2, stopping=0, passed_over=1, refused=(), resume_token="next")
        raise CommandError("the broker is away", 5)

    with pytest.raises(CommandError):
        carry_out(slices(), 1_200, "requeued", is_json=False)

    written = capsys.readouterr()
    assert written.out == "2 jobs requeued, 1 passed over.\n"
    assert written.err == "2 of about 1,200 requeued\n"


def test_bulk_call_says_what_another_try_would_mend_and_what_not(capsys: pytest.CaptureFixture[str]) -> None:
    gone, full = RefusedJob("j1", NotFoundError("the group has been removed")), RefusedJob("j2", FullError("full"))
    only_gone, both = (
        BulkSlice(matched=2, changed=0, stopping=0, passed_over=0, refused=refused, resume_token="")
        for refused in ((gone,), (gone, full))
    )

    assert carry_out([only_gone], 1, "requeued", is_json=False) == 3
    assert capsys.readouterr().out == "0 jobs requeued, 1 refused for good.\n"
    carry_out([both], 2, "requeued", is_json=False)
    again = "1 refused: the same command again tries them again"
    assert capsys.readouterr().out == f"0 jobs requeued, 1 refused for good, {again}.\n"
    carry_out([both], 2, "requeued", is_json=True)
    assert '"refused":2' in capsys.readouterr().out.replace(" ", "")
