"""Puts `CVMManager` where NVFLARE looks for its `CCManager`. No file of NVFLARE or the kit changes.

NVFLARE's provisioning writes its own manager's path into every CC kit and signs the kit as a whole,
so that the path cannot be changed afterwards. A kit whose authorizers are all NVFLARE's or others'
keeps NVFLARE's manager, as its peers do: the two do not answer each other's questions. The image
imports this module whenever its Python starts, by a line in the venv:

    echo 'import flare_cvm_substitute' > $VENV/lib/python3.X/site-packages/flare_cvm_substitute.pth

Installing the wheel alone does nothing. The module is beside the package, as importing the
package imports NVFLARE.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# Where NVFLARE reads the components of a server's or client's own process from, in its workspace.
_RESOURCES = "local/*resources.json*"
_MODULE = "nvflare.app_opt.confidential_computing.cc_manager"


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODULE or not _kit_is_ours():
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, nvflares: Loader) -> None:
        self._nvflares = nvflares

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._nvflares.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._nvflares.exec_module(module)
        # The package puts its manager here when it is whole, which it becomes now, unless it is
        # what imports NVFLARE's. Where it cannot be imported, NVFLARE's cannot either: a site does
        # not fall back to the weaker manager.
        if "flare_cvm" not in sys.modules:
            importlib.import_module("flare_cvm")


def _kit_is_ours() -> bool:
    """Whether an authorizer of ours is in the kit that this process runs. What cannot be read
    counts as ours, and so does a process without a kit: nothing but a kit's own words leaves
    NVFLARE's manager in its place.
    """
    options = zip(sys.argv, sys.argv[1:], strict=False)
    workspace = next((value for option, value in options if option in ("-m", "--workspace")), None)
    files = sorted(Path(workspace).glob(_RESOURCES)) if workspace else []
    return not files or any(_names_ours(file) for file in files)


def _names_ours(file: Path) -> bool:
    try:
        components = json.loads(file.read_text()).get("components", [])
        return any(str(component.get("path")).startswith("flare_cvm.") for component in components)
    except (OSError, ValueError, AttributeError, TypeError):
        return True


if _MODULE in sys.modules:
    raise ImportError(
        "flare_cvm_substitute comes too late: NVFLARE's CC manager is imported already"
    )
sys.meta_path.insert(0, _Finder())
