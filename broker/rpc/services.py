"""Which services stand on which port. `broker.app` opens the ports and knows nothing of protobuf."""

from typing import Final

import grpc.aio

from broker.rpc.admin import AdminService
from broker.rpc.agents import AgentService
from broker.rpc.jobs import JobService
from broker.rpc.server import reflect
from protos.mesh.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
)

API_SERVICES: Final = (
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
)
MESH_SERVICES: Final = (agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,)


def register_api(server: grpc.aio.Server, jobs: JobService, admin: AdminService) -> None:
    """What submitters, operators and their tools call."""
    job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
    reflect(server, API_SERVICES)


def register_mesh(server: grpc.aio.Server, agents: AgentService) -> None:
    """What agents call."""
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
