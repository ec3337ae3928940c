"""flare-cvm in NVIDIA FLARE: authorizer and hardened CC manager of sealed sites."""

import sys

from nvflare.app_opt.confidential_computing import cc_manager as _nvflares

from .agent_client import AgentClient
from .authorizer import CVM_NAMESPACE, CVMAuthorizer
from .manager import CVMManager

__all__ = ["CVM_NAMESPACE", "AgentClient", "CVMAuthorizer", "CVMManager"]
__version__ = "0.1.0"

if "flare_cvm_substitute" in sys.modules:
    _nvflares.CCManager = CVMManager
