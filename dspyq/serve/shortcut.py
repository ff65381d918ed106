"""The way of questions past the router: most requests are questions to programs whose paths are known at the start."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


class Shortcut:
    """Finds the endpoint of a POST by its whole path, which takes a tenth of the router's search.

    Args:
        route: The route of the endpoint, with the parameter ``program`` in its path.
        programs: The programs.
        root_path: The path that the API is served under.
        others: The application that answers all other requests.
    """

    def __init__(self, route: Route, programs: Iterable[str], root_path: str, others: ASGIApp) -> None:
        self._endpoint = route.app
        self._others = others
        self._found = {
            root_path + route.path_format.format(program=name): {"route": route, "path_params": {"program": name}}
            for name in programs
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        found = self._found.get(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await self._others(scope, receive, send)
        else:
            scope.update(found)
            await self._endpoint(scope, receive, send)
