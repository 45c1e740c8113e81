# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The application: addresses, who may ask, and errors as JSON."""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.serving.api_page import make_page
from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.jobs import Job, JobManager, explain_os_error, to_datetime
from prithvi_hf.serving.metrics import CONTENT_TYPE
from prithvi_hf.serving.results import RESULT_FILES, NoTileError, find_zooms, render_tile
from prithvi_hf.serving.schemas import (
    ErrorBody,
    Frame,
    Health,
    JobOptions,
    JobState,
    ModelInfo,
    Summary,
    UrlRequest,
)
from prithvi_hf.serving.uploads import Body, check_content_type, clean_label, read_form, read_json


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_DESCRIPTION = """Maps of satellite scenes by one model: send a scene, ask for its job until it is finished, fetch
the results. Errors are JSON that says what was expected, what was found and what to do. See `/docs` for examples."""
_SEGMENT_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": "One GeoTIFF, or one per date in time order.",
                    },
                    "options": {
                        "type": "string",
                        "description": "JSON, see JobOptions.",
                        "example": '{"overlap": 0.25}',
                    },
                },
            }
        },
        "application/json": {"schema": {"$ref": "#/components/schemas/UrlRequest"}},
    },
}
_WEB_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe answers that are errors."""
    return {status: {"model": ErrorBody} for status in statuses}


def create_app(
    manager: JobManager,
    image_processor: "PrithviImageProcessor",
    config: "PrithviConfig",
    *,
    version: str,
    root_path: str = "",
    allow_origin: tuple[str, ...] = (),
) -> FastAPI:
    """Make the application of a server.

    Args:
        manager: Its jobs.
        image_processor: Of its model.
        config: Of its model.
        version: Of this package.
        root_path: What a proxy in front of it takes off the beginning of paths.
        allow_origin: Web pages of other origins that may use it, such as "https://maps.example.org".
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
    api = APIRouter(prefix="/v1", dependencies=[Depends(check_token)], responses=_errors(401))
    describe = _Describer(manager)

    @api.post(
        "/segment",
        status_code=202,
        response_model=JobState,
        responses=_errors(400, 403, 408, 413, 415, 422, 429, 503, 507),
        openapi_extra={"requestBody": _SEGMENT_BODY},
    )
    async def segment(request: Request) -> JSONResponse:
        """Map a scene: one GeoTIFF, or one per date in time order, as files or at addresses."""
        if settings.token is None:
            _refuse_other_pages(request, allow_origin)
        kind, most_bytes = check_content_type(request.headers.get("content-type", ""), settings.limits)
        body = Body(request, most_bytes, settings.limits.upload_timeout)
        try:
            with manager.receive() as folder:
                if kind == "application/json":
                    content = b"".join([chunk async for chunk in body])
                    asked = read_json(content, UrlRequest)
                    if len(asked.urls) > image_processor.num_frames:
                        raise ApiError(
                            422,
                            f"at most {image_processor.num_frames} addresses, one per date of the model",
                            f"{len(asked.urls)}",
                            "Give the frames of one scene; each is a GeoTIFF of all bands.",
                        )
                    found = [manager.fetcher.check(url) for url in asked.urls]
                    names = [clean_label(one.label, number) for number, one in enumerate(found, start=1)]
                    options = asked.options.model_dump(exclude_none=True)
                    job = await to_thread.run_sync(manager.submit, folder, names, options, asked.urls)
                else:
                    content_type = request.headers["content-type"]
                    upload = await read_form(body, content_type, folder, image_processor.num_frames)
                    options = upload.options.model_dump(exclude_none=True)
                    job = await to_thread.run_sync(manager.submit, folder, upload.names, options)
        except ApiError:
            await body.drain()
            raise
        except OSError as error:
            raise explain_os_error(error) from error
        place = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
        return JSONResponse(describe(job, request).model_dump(mode="json"), 202, {"Location": place})

    @api.get("/jobs/{job_id}", response_model=JobState, responses=_errors(404))
    def get_job(job_id: str, request: Request) -> JobState:
        """Tell how far a job is."""
        return describe(manager.get(job_id), request)

    @api.delete("/jobs/{job_id}", response_model=JobState, responses=_errors(404))
    def delete_job(job_id: str, request: Request) -> JobState:
        """Cancel a job, or delete a finished one with its results."""
        job = manager.get(job_id)
        manager.remove(job)
        return describe(job, request)

    def find(job_id: str, name: str) -> tuple[Job, Path]:
        """Find a result, or say why there is none."""
        job = manager.get(job_id)
        path = manager.find_result(job, name)
        if path is None:
            if job.status == "succeeded":
                raise ApiError(
                    404,
                    f"a job with the output {name}",
                    "one without",
                    "Name it among `outputs` when you send a scene.",
                )
            raise ApiError(409, "a job that has succeeded", f"one that is {job.status}", "Ask for its job first.")
        return job, path

    def add_result(name: str) -> None:
        """Add the address of a kind of result."""
        record = RESULT_FILES[name]

        def get_result(job_id: str) -> FileResponse:
            job, path = find(job_id, name)
            stem = Path(job.names[0]).stem or "scene"
            return FileResponse(path, media_type=record.media_type, filename=f"{stem}{record.ending}")

        path = f"/jobs/{{job_id}}/{record.name}"
        text = "What is on the map" if name == "summary" else f"The {name} of a job"
        answer: dict[str, Any] = {"content": {record.media_type: {"schema": {"type": "string", "format": "binary"}}}}
        api.get(
            path,
            response_class=FileResponse,
            responses={**_errors(404, 409), 200: {"model": Summary} if name == "summary" else answer},
            summary=text,
            description=f"{text}; ranges of bytes can be asked for.",
            operation_id=f"get_{name}",
        )(get_result)
        api.head(path, include_in_schema=False)(get_result)  # which GDAL asks first

    for name in RESULT_FILES:
        add_result(name)

    @api.get("/jobs/{job_id}/tilejson.json", responses=_errors(404, 409))
    def get_tilejson(job_id: str, request: Request) -> dict[str, Any]:
        """Describe the tiles of a map (TileJSON 3.0)."""
        job, path = find(job_id, "map")
        summary = job.summary or {}
        try:
            least, most = find_zooms(path)
        except NoTileError as error:
            raise _refuse_tile(error) from error
        west, south, east, north = summary.get("bounds") or (-180.0, -85.0511, 180.0, 85.0511)
        if west > east:  # across 180 degrees
            west, east = -180.0, 180.0
        base = str(request.base_url).rstrip("/")
        return {
            "tilejson": "3.0.0",
            "name": job.names[0],
            "tiles": [f"{base}/v1/jobs/{job.id}/tiles/{{z}}/{{x}}/{{y}}.png"],
            "scheme": "xyz",
            "bounds": [west, south, east, north],
            "minzoom": least,
            "maxzoom": most,
            "legend": ", ".join(f"{one['name']} {one['color']}" for one in summary.get("classes") or ()),
            "vector_layers": [],
        }

    @api.get(
        "/jobs/{job_id}/tiles/{z}/{x}/{y}.png",
        response_class=Response,
        responses={**_errors(404, 409), 200: {"content": {"image/png": {}}}},
    )
    def get_tile(job_id: str, z: int, x: int, y: int) -> Response:
        """Draw a tile of a map in its own colours."""
        job, path = find(job_id, "map")
        try:
            content = render_tile(path, z, x, y, (job.summary or {}).get("values"))
        except NoTileError as error:
            raise _refuse_tile(error) from error
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @api.get("/model", response_model=ModelInfo)
    def get_model() -> ModelInfo:
        """Tell what the model takes and gives."""
        labels = {int(index): str(label) for index, label in (config.id2label or {}).items()}
        names = [labels[index] for index in sorted(labels)]
        task = manager.worker.info["task"]
        palette = class_palette(len(names), getattr(config, "class_colors", None), names)
        classes = [
            {"value": value, "name": name, "color": "#{:02x}{:02x}{:02x}".format(*palette[value])}
            for value, name in enumerate(names)
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
            limits=vars(settings.limits),
            allow_url=list(settings.allow_url),
            version=version,
        )

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

    @app.get("/metrics", response_class=Response, dependencies=[Depends(check_token)], responses=_errors(401))
    def get_metrics() -> Response:
        """Give figures for Prometheus."""
        return Response(manager.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/docs", include_in_schema=False)
    def get_page(request: Request) -> HTMLResponse:
        """Show how the server is used; the page needs no network."""
        return HTMLResponse(make_page(app.openapi(), str(request.base_url).rstrip("/"), settings.token is not None))

    @app.get("/", include_in_schema=False)
    def get_root(request: Request) -> Response:
        """Lead to the page."""
        return Response(status_code=307, headers={"Location": f"{request.scope.get('root_path', '')}/docs"})

    app.include_router(api)
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
    app.add_middleware(_Observer, count=manager.metrics.requests.labels)
    if allow_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(allow_origin),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location", "Retry-After"],
        )
    manager.metrics.watch("prithvi_jobs_waiting", "Jobs that wait.", lambda: manager.count()[0])
    manager.metrics.watch("prithvi_jobs_running", "Jobs that run.", lambda: manager.count()[1])
    manager.metrics.watch("prithvi_ready", "Whether jobs are taken.", lambda: float(manager.is_ready))
    manager.metrics.watch(
        "prithvi_worker_restarts",
        "Times that the process of the model was started again.",
        lambda: manager.worker.restarts,
    )
    return app


class _Describer:
    """Describes jobs to clients."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    def __call__(self, job: Job, request: Request) -> JobState:
        """Describe a job, with links to what can be fetched."""
        base = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
        done, total = job.progress
        links = {"self": base}
        if job.status == "succeeded":
            names = [name for name in RESULT_FILES if self._manager.find_result(job, name)]
            links |= {name: f"{base}/{RESULT_FILES[name].name}" for name in names}
            if (job.summary or {}).get("crs"):
                links |= {"tilejson": f"{base}/tilejson.json"}
        sizes = [*job.sizes, *[None] * len(job.names)]
        return JobState(
            id=job.id,
            status=cast(Any, job.status),
            progress=1.0 if job.status == "succeeded" else done / total if total else 0.0,
            position=self._manager.position(job),
            frames=[Frame(name=name, bytes=size) for name, size in zip(job.names, sizes, strict=False)],
            options=job.options,
            created=cast(Any, to_datetime(job.created)),
            started=to_datetime(job.started),
            finished=to_datetime(job.finished),
            expires=to_datetime(self._manager.expires(job)),
            error=cast(Any, job.error),
            links=links,
        )


def _refuse_tile(error: NoTileError) -> ApiError:
    """Make the error of a tile that is not there."""
    return ApiError(404, "a tile of the map", str(error), "Its TileJSON says where the map is.")


def _refuse_other_pages(request: Request, allowed: tuple[str, ...]) -> None:
    """Refuse a form that a web page of another origin has sent: any page could, to a server on the same machine."""
    origin = request.headers.get("origin")
    if origin is None or origin in allowed or origin.partition("://")[2] == request.headers.get("host"):
        return
    raise ApiError(
        403,
        "a request of a program or of a page of this server",
        "one of another page",
        "Use --allow_origin, or a token.",
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
