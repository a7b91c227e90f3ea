"""What is really loaded: import contracts do not see what an `__init__` or a library pulls in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker.observe.test_recording import ONE, Turns
from tests.meta.check import ROOT

HEAVY = ("grpc", "google.protobuf", "sqlalchemy", "protos")

IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module({name!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not f"{{module.name}}.".startswith({left_out!r}):
        importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))
"""

IMPORT_ONE = """
import importlib, json, sys
importlib.import_module({name!r})
print(json.dumps(sorted(sys.modules)))
"""


COMMAND = """
import json, sys
from simulator.cli import main
sys.argv = ["mesh-sim", *{arguments!r}]
try:
    status = main()
except SystemExit as stop:
    status = stop.code
print()
print(json.dumps(sorted(sys.modules)))
sys.exit(status)
"""


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has after `code`, which prints them as its last line."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def heavy(modules: set[str], *more: str) -> list[str]:
    """Those of `modules` that a pure part must not load."""
    tops = (*HEAVY, *more)
    return sorted(name for name in modules if any(name == top or name.startswith(f"{top}.") for top in tops))


def test_dispatch_loads_neither_wire_nor_store_nor_event_loop() -> None:
    modules = loaded_after(IMPORT_ALL.format(name="broker.dispatch", left_out=()))

    assert heavy(modules, "asyncio", "sqlite3", "broker.store", "broker.settings") == []
    assert "broker.dispatch.dispatcher" in modules


@pytest.mark.parametrize("name", ["agent_stub.session", "agent_stub.backoff"])
def test_pure_agent_side_loads_the_standard_library_only(name: str) -> None:
    fresh = loaded_after("import importlib, json, sys; print(json.dumps(sorted(sys.modules)))")
    modules = loaded_after(IMPORT_ONE.format(name=name)) - fresh

    foreign = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"agent_stub"}
    assert foreign == set()
    assert heavy(modules, "asyncio", "socket") == []


def test_simulator_loads_neither_wire_nor_store() -> None:
    # Those two alone may talk to a real broker.
    left_out = ("simulator.emulate.", "simulator.calibrate.")
    modules = loaded_after(IMPORT_ALL.format(name="simulator", left_out=left_out))

    assert heavy(modules, "broker.store", "broker.engine", "broker.rpc", "mesh_client") == []
    assert "simulator.cli" in modules


def test_mesh_sim_run_loads_neither_wire_nor_store() -> None:
    once = ["--replications", "1", "--backend", "serial", "--no-cache", "--with", "objectives=[]"]
    modules = loaded_after(COMMAND.format(arguments=["run", "simulator/scenarios/agent-loss.yaml", "--json", *once]))

    assert heavy(modules, "mesh_client", "altair", "polars", "jinja2", "vl_convert") == []
    assert "simulator.report.files" in modules


def test_simulator_loads_neither_wire_nor_store_when_it_replays_a_journal(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    turns.add(ONE)
    turns.agents(ONE, 1)
    turns.work(ONE, 3)
    turns.recording.stop()
    modules = loaded_after(COMMAND.format(arguments=["replay", str(tmp_path), "--with", "agents=+1"]))

    assert {"simulator.replay", "broker.journal.segment"} <= modules
    assert heavy(modules, "mesh_client") == []


def test_this_test_sees_a_heavy_module_that_is_loaded() -> None:
    assert "google.protobuf" in heavy(loaded_after(IMPORT_ONE.format(name="protos.mesh.v1.job_pb2")))
