"""Real brokers and agents for tests: free ports, named signals, and nothing left running.

    async with Mesh(tmp_path) as mesh:
        await mesh.start_broker()
        await mesh.start_agent("a1", slots=4)
        await mesh.broker.kill()

It is the demonstration's own: what people are shown and what tests start are the same processes.
"""

from broker.cli._demo_store import JobRecord, count_held, read_jobs, store_file
from mesh_client.loopback import AGENT_PROGRAM, BROKER_PROGRAM, Addresses, Mesh, Process, ProcessError

__all__ = [
    "AGENT_PROGRAM",
    "BROKER_PROGRAM",
    "Addresses",
    "JobRecord",
    "Mesh",
    "Process",
    "ProcessError",
    "count_held",
    "read_jobs",
    "store_file",
]
