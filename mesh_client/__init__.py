"""What programs that submit jobs import.

    async with MeshClient("127.0.0.1:7402", group="loaders") as mesh:
        job = await mesh.submit("files.csv_to_sql", json={"source": "orders.csv"})
        rows = (await job).json()
        async for done in mesh.map("files.csv_to_sql", [{"source": name} for name in names], progress=True):
            print(done.item, done.result.json())

`SyncMeshClient` has the same methods for programs without an event loop. Errors are `MeshClientError`s; each has a
`reason` for programs and a `next_step` for people.
"""

from mesh_client.client import MeshClient
from mesh_client.errors import (
    ConflictError,
    DeniedError,
    FullError,
    InternalError,
    JobCancelledError,
    JobDeadError,
    JobFailedError,
    MalformedError,
    MeshClientError,
    MeshTimeoutError,
    NotFoundError,
    UnavailableError,
    WrongStateError,
)
from mesh_client.futures import JobFuture
from mesh_client.jobs import (
    FINAL_STATES,
    AgentVerdict,
    AttemptView,
    BulkSlice,
    Explanation,
    Failure,
    JobChange,
    JobChoice,
    JobResult,
    JobSpec,
    JobState,
    JobView,
    RefusedJob,
    SubmittedJob,
    TransitionView,
)
from mesh_client.mapping import Mapped, Progress
from mesh_client.resources import (
    AgentExplanation,
    AgentView,
    DrainView,
    EnvironmentView,
    GroupPolicy,
    GroupView,
    OrganizationView,
    Removal,
)
from mesh_client.sync import SyncJobFuture, SyncMeshClient

__all__ = [
    "FINAL_STATES",
    "AgentExplanation",
    "AgentVerdict",
    "AgentView",
    "AttemptView",
    "BulkSlice",
    "ConflictError",
    "DeniedError",
    "DrainView",
    "EnvironmentView",
    "Explanation",
    "Failure",
    "FullError",
    "GroupPolicy",
    "GroupView",
    "InternalError",
    "JobCancelledError",
    "JobChange",
    "JobChoice",
    "JobDeadError",
    "JobFailedError",
    "JobFuture",
    "JobResult",
    "JobSpec",
    "JobState",
    "JobView",
    "MalformedError",
    "Mapped",
    "MeshClient",
    "MeshClientError",
    "MeshTimeoutError",
    "NotFoundError",
    "OrganizationView",
    "Progress",
    "RefusedJob",
    "Removal",
    "SubmittedJob",
    "SyncJobFuture",
    "SyncMeshClient",
    "TransitionView",
    "UnavailableError",
    "WrongStateError",
]
