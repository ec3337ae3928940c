"""flare-cvm in NVIDIA FLARE: the authorizer and the hardened CC manager of sites sealed into Confidential VMs."""

from .agent_client import AgentClient
from .authorizer import CVM_NAMESPACE, CVMAuthorizer
from .manager import CVMManager

__all__ = ["CVM_NAMESPACE", "AgentClient", "CVMAuthorizer", "CVMManager"]
__version__ = "0.1.0"
