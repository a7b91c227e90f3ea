"""What programs that submit jobs import.

    async with MeshClient("127.0.0.1:7402", group="loaders") as mesh:
        submitted = await mesh.submit("files.csv_to_sql", json={"source": "orders.csv"})
        [job] = await mesh.wait([submitted.job_id], timeout_s=60)

`SyncMeshClient` has the same methods for programs without an event loop. Errors are `MeshClientError`s.
"""

from mesh_client.client import MeshClient
from mesh_client.errors import (
    ConflictError,
    DeniedError,
    FullError,
    InternalError,
    MalformedError,
    MeshClientError,
    MeshTimeoutError,
    NotFoundError,
    UnavailableError,
    WrongStateError,
)
from mesh_client.jobs import (
    FINAL_STATES,
    AgentVerdict,
    Explanation,
    Failure,
    JobChange,
    JobResult,
    JobSpec,
    JobState,
    JobView,
    SubmittedJob,
)
from mesh_client.resources import AgentExplanation, AgentView, DrainView, EnvironmentView, GroupView, OrganizationView
from mesh_client.sync import SyncMeshClient

__all__ = [
    "FINAL_STATES",
    "AgentExplanation",
    "AgentVerdict",
    "AgentView",
    "ConflictError",
    "DeniedError",
    "DrainView",
    "EnvironmentView",
    "Explanation",
    "Failure",
    "FullError",
    "GroupView",
    "InternalError",
    "JobChange",
    "JobResult",
    "JobSpec",
    "JobState",
    "JobView",
    "MalformedError",
    "MeshClient",
    "MeshClientError",
    "MeshTimeoutError",
    "NotFoundError",
    "OrganizationView",
    "SubmittedJob",
    "SyncMeshClient",
    "UnavailableError",
    "WrongStateError",
]
