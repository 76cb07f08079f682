"""JupyterLab for `make lab`: paths in notebooks are relative to the project, as in batch runs."""

from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager


class FromTheProject(AsyncMappingKernelManager):
    """Starts every kernel in the folder that JupyterLab was started in."""

    def cwd_for_path(self, path: str, **_: Any) -> str:
        return super().cwd_for_path("", **_)


c = get_config()  # type: ignore[name-defined]  # noqa: F821  # given by Jupyter
c.ServerApp.kernel_manager_class = FromTheProject
c.LabApp.news_url = None
c.LabApp.default_url = "/lab/tree/notebooks/tutorial.ipynb"
