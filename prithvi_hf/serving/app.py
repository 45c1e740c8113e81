# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The application: addresses, who may ask, and errors as JSON."""

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic.json_schema import models_json_schema
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from prithvi_hf.outputs.palette import class_palette, format_color
from prithvi_hf.serving.api_page import make_page
from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.job_routes import add_job_routes
from prithvi_hf.serving.jobs import JobManager
from prithvi_hf.serving.metrics import CONTENT_TYPE
from prithvi_hf.serving.result_routes import add_file_routes, add_tile_routes
from prithvi_hf.serving.schemas import Health, JobOptions, ModelInfo, UrlRequest, describe_errors


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_HOST = re.compile(r"(?:\[(?P<address>[\da-f:.]+)\]|(?P<name>[\w.-]+))(?::\d*)?", re.I)
_DESCRIPTION = """Maps of satellite scenes by one model: send a scene, ask for its job until it is finished, fetch
the results. Errors are JSON that says what was expected, what was found and what to do. See `/docs` for examples."""
_WEB_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)


def create_app(
    manager: JobManager,
    image_processor: "PrithviImageProcessor",
    config: "PrithviConfig",
    *,
    version: str,
    root_path: str = "",
    allow_origin: tuple[str, ...] = (),
    allow_host: tuple[str, ...] = (),
) -> FastAPI:
    """Make the application of a server.

    Args:
        manager: Its jobs.
        image_processor: Of its model.
        config: Of its model.
        version: Of this package.
        root_path: What a proxy in front of it takes off the beginning of paths.
        allow_origin: Web pages of other origins that may use it, such as "https://maps.example.org".
        allow_host: Names that requests without a token may be addressed to, besides localhost and addresses.
    """
    settings, bearer = manager.settings, HTTPBearer(auto_error=False)

    def check_token(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        """Refuse who does not show the token; the time that takes says nothing of it."""
        if settings.token is None:
            return
        shown = given.credentials if given is not None and given.scheme.lower() == "bearer" else ""
        if not hmac.compare_digest(shown.encode(), settings.token.encode()):
            raise ApiError(
                401,
                "the token of this server, in the header `Authorization: Bearer TOKEN`",
                "another token" if shown else "none",
                "Ask the operator of this server for it.",
            )

    app = FastAPI(
        title="Prithvi maps",
        version=version,
        description=_DESCRIPTION,
        root_path=root_path,
        docs_url=None,
        redoc_url=None,
    )
    api = APIRouter(prefix="/v1", dependencies=[Depends(check_token)], responses=describe_errors(401))
    add_job_routes(api, manager, image_processor.num_frames, allow_origin)
    add_file_routes(api, manager)
    add_tile_routes(api, manager)

    @api.get("/model", response_model=ModelInfo)
    def get_model() -> ModelInfo:
        """Tell what the model takes and gives."""
        return describe_model(manager, image_processor, config, version)

    @app.get("/metrics", response_class=Response, dependencies=[Depends(check_token)], responses=describe_errors(401))
    def get_metrics() -> Response:
        """Give figures for Prometheus."""
        return Response(manager.metrics.text(), media_type=CONTENT_TYPE)

    app.include_router(api)
    _add_status(app, manager)
    make_schema = app.openapi

    def describe_api() -> dict[str, Any]:
        """Describe the application, with what the bodies of requests hold."""
        described = make_schema()
        _, bodies = models_json_schema(
            [(UrlRequest, "validation"), (JobOptions, "validation")], ref_template="#/components/schemas/{model}"
        )
        described["components"]["schemas"].update(bodies["$defs"])
        return described

    app.openapi = describe_api  # type: ignore[method-assign]  # as FastAPI's documentation wants it
    _add_errors(app)
    if settings.token is None:
        app.add_middleware(_HostCheck, names={"localhost", *(name.lower() for name in allow_host)})
    app.add_middleware(_Observer, count=manager.metrics.requests.labels)
    if allow_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(allow_origin),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location", "Retry-After"],
        )
    return app


def describe_model(
    manager: JobManager, image_processor: "PrithviImageProcessor", config: "PrithviConfig", version: str
) -> ModelInfo:
    """Tell what the model takes and gives."""
    labels = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    names = [labels[index] for index in sorted(labels)]
    task = manager.worker.info["task"]
    palette = class_palette(len(names), getattr(config, "class_colors", None), names)
    classes = [
        {"value": value, "name": name, "color": format_color(palette[value])} for value, name in enumerate(names)
    ]
    size = config.image_size
    is_regression = task == "regression"
    return ModelInfo(
        task=task,
        bands=list(image_processor.bands),
        num_frames=image_processor.num_frames,
        image_size=[size, size] if isinstance(size, int) else list(size),
        classes=None if is_regression else classes,
        quantity={"name": config.target_name, "unit": config.target_unit} if is_regression else None,
        takes=list(config.coords_encoding or ()),
        limits=vars(manager.settings.limits),
        allow_url=list(manager.settings.allow_url),
        version=version,
    )


def _add_status(app: FastAPI, manager: JobManager) -> None:
    """Add the addresses that tell how the server is, and the page of examples."""

    @app.get("/health", response_model=Health)
    @app.get("/health/ready", response_model=Health, responses={503: {"model": Health}})
    def get_health(request: Request) -> JSONResponse:
        """Tell whether the server lives, and whether it takes jobs; `/health/ready` answers 503 where it does not."""
        waiting, running = manager.count()
        status = "stopping" if manager.is_stopping else "ready" if manager.is_ready else "starting"
        content = {"live": True, "ready": manager.is_ready, "status": status, "waiting": waiting, "running": running}
        code = 503 if request.url.path.endswith("/ready") and not manager.is_ready else 200
        return JSONResponse(content, code)

    @app.get("/health/live")
    def get_live() -> dict[str, bool]:
        """Tell that the server lives."""
        return {"live": True}

    @app.get("/docs", include_in_schema=False)
    def get_page(request: Request) -> HTMLResponse:
        """Show how the server is used; the page needs no network."""
        return HTMLResponse(
            make_page(app.openapi(), str(request.base_url).rstrip("/"), manager.settings.token is not None)
        )

    @app.get("/", include_in_schema=False)
    def get_root(request: Request) -> Response:
        """Lead to the page."""
        return Response(status_code=307, headers={"Location": f"{request.scope.get('root_path', '')}/docs"})

    manager.metrics.watch("prithvi_jobs_waiting", "Jobs that wait.", lambda: manager.count()[0])
    manager.metrics.watch("prithvi_jobs_running", "Jobs that run.", lambda: manager.count()[1])
    manager.metrics.watch("prithvi_ready", "Whether jobs are taken.", lambda: float(manager.is_ready))
    manager.metrics.watch(
        "prithvi_worker_restarts",
        "Times that the process of the model was started again.",
        lambda: manager.worker.restarts,
    )


def _add_errors(app: FastAPI) -> None:
    """Give all errors the same form."""

    @app.exception_handler(ApiError)
    async def answer(_: Request, error: ApiError) -> JSONResponse:
        headers = {**error.headers, **({"WWW-Authenticate": "Bearer"} if error.status == 401 else {})}
        return JSONResponse(error.content, error.status, headers)

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> JSONResponse:
        method = error.status_code == 405
        wrong = ApiError(
            error.status_code,
            "a method of this address" if method else "an address of this server",
            request.method if method else "another one",
            "See /docs for all of them.",
        )
        return JSONResponse(wrong.content, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def answer_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place: Literal["path"] | str = ".".join(map(str, first["loc"]))
        wrong = ApiError(422, f"another value for {place}", first["msg"], "See /docs.")
        return await answer(request, wrong)

    @app.exception_handler(ClientDisconnect)
    async def answer_nobody(request: Request, _: ClientDisconnect) -> JSONResponse:
        return await answer(request, ApiError(400, "a whole request", "that the client has left", "Send it again."))

    @app.exception_handler(Exception)
    async def answer_fault(request: Request, _: Exception) -> JSONResponse:
        return await answer(request, ApiError(500, "an answer", "a fault of the server", "Tell its operator."))


class _HostCheck:
    """Refuses names that are not known to be the server's: the page of such a name could use the server.

    Whoever owns a name can make it lead to a visitor's machine (DNS rebinding), and the browser then takes the server
    there for the one of the page. No name passes for an address. Starlette's TrustedHostMiddleware knows neither
    addresses in general nor answers that say what to do.
    """

    def __init__(self, app: Any, names: set[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: _Send) -> None:
        app = self._app
        if scope["type"] == "http":
            header = Headers(scope=scope).get("host", "")
            host = _HOST.fullmatch(header)
            name = (host["address"] or host["name"]).lower() if host else ""
            try:
                if name not in self._names:
                    ipaddress.ip_address(name)
            except ValueError:
                error = ApiError(
                    400,
                    "a request that is addressed to localhost, an IP address or a name of this server",
                    f"the host {header[:100]}" if header else "no host",
                    "If it is a name of this server, its operator can start it with --allow_host and the name.",
                )
                app = JSONResponse(error.content, error.status)
        await app(scope, receive, send)


class _Observer:
    """Counts requests by their address's pattern, and adds headers for browsers."""

    def __init__(self, app: Any, count: Callable[..., Any]) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def observe(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_WEB_HEADERS]
                route = scope.get("route")
                self._count(scope["method"], getattr(route, "path", "other"), str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, observe)
