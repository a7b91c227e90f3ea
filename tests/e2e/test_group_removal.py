"""A group that is removed while it works, and a broker that is killed in the middle of that."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mesh_client import JobSpec, MeshClient, NotFoundError
from tests.e2e.processes import Mesh

pytestmark = pytest.mark.e2e

JOBS = 3_000
WAIT_S = 30.0
EXIT_DENIED = 4


@pytest.mark.req("R17", "R50")
async def test_group_is_removed_to_its_end_although_the_broker_is_killed_meanwhile(tmp_path: Path) -> None:
    async with Mesh(tmp_path / "data") as mesh:
        await mesh.start_broker()
        await mesh.start_agent("a1", slots=2)
        async with MeshClient(mesh.addresses.api) as client:
            submitted = await client.submit_many([JobSpec("sleep", json={"seconds": 60}) for _ in range(JOBS)])

            gone = await client.remove_group("default", force=True)
            await mesh.broker.kill()
            assert (gone.agents, gone.environments, gone.jobs) == (("default/a1",), ("default",), JOBS)
            await mesh.start_broker()

            with pytest.raises(NotFoundError):
                await client.get_group("default")
            jobs = await client.wait([job.job_id for job in submitted], timeout_s=WAIT_S)
            ends = Counter((job.state.value, job.failure.code if job.failure else "") for job in jobs)
            assert ends == {("cancelled", "group_removed"): JOBS}
            assert await mesh.agents["a1"].ended() == EXIT_DENIED
