"""The programs of the mesh, by their names."""

from __future__ import annotations

from typing import Final

import pytest
from cyclopts import App

from agent_stub.cli import app as mesh_agent
from broker.cli import app as mesh
from simulator.cli import app as mesh_sim

PROGRAMS: Final = {"mesh": mesh, "mesh-agent": mesh_agent, "mesh-sim": mesh_sim}


@pytest.fixture(params=PROGRAMS)
def app(request: pytest.FixtureRequest) -> App:
    """Each of them."""
    return PROGRAMS[request.param]
