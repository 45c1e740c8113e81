# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The addresses of jobs: scenes are taken, and clients are told how far they are."""

from typing import Any, cast

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.jobs import Job, JobManager, explain_os_error, to_datetime
from prithvi_hf.serving.results import RESULT_FILES
from prithvi_hf.serving.schemas import Frame, JobState, UrlRequest, describe_errors
from prithvi_hf.serving.uploads import Body, check_content_type, clean_label, read_form, read_json


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


def add_job_routes(api: APIRouter, manager: JobManager, num_frames: int, allow_origin: tuple[str, ...] = ()) -> None:
    """Add the addresses of jobs.

    Args:
        api: Where to.
        manager: The jobs.
        num_frames: Of the model.
        allow_origin: Web pages of other origins that may send scenes to a server without a token.
    """

    @api.post(
        "/segment",
        status_code=202,
        response_model=JobState,
        responses=describe_errors(400, 403, 408, 413, 415, 422, 429, 503, 507),
        openapi_extra={"requestBody": _SEGMENT_BODY},
    )
    async def segment(request: Request) -> JSONResponse:
        """Map a scene: one GeoTIFF, or one per date in time order, as files or at addresses."""
        if manager.settings.token is None:
            refuse_other_pages(request, allow_origin)
        kind, most_bytes = check_content_type(request.headers.get("content-type", ""), manager.settings.limits)
        body = Body(request, most_bytes, manager.settings.limits.upload_timeout)
        try:
            with manager.receive() as folder:
                if kind == "application/json":
                    content = b"".join([chunk async for chunk in body])
                    asked = read_json(content, UrlRequest)
                    if len(asked.urls) > num_frames:
                        raise ApiError(
                            422,
                            f"at most {num_frames} addresses, one per date of the model",
                            f"{len(asked.urls)}",
                            "Give the frames of one scene; each is a GeoTIFF of all bands.",
                        )
                    found = [manager.fetcher.check(url) for url in asked.urls]
                    names = [clean_label(one.label, number) for number, one in enumerate(found, start=1)]
                    options = asked.options.model_dump(exclude_none=True)
                    job = await to_thread.run_sync(manager.submit, folder, names, options, asked.urls)
                else:
                    content_type = request.headers["content-type"]
                    upload = await read_form(body, content_type, folder, num_frames)
                    options = upload.options.model_dump(exclude_none=True)
                    job = await to_thread.run_sync(manager.submit, folder, upload.names, options)
        except ApiError:
            await body.drain()
            raise
        except OSError as error:
            raise explain_os_error(error) from error
        place = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
        return JSONResponse(describe_job(manager, job, request).model_dump(mode="json"), 202, {"Location": place})

    @api.get("/jobs/{job_id}", response_model=JobState, responses=describe_errors(404))
    def get_job(job_id: str, request: Request) -> JobState:
        """Tell how far a job is."""
        return describe_job(manager, manager.get(job_id), request)

    @api.delete("/jobs/{job_id}", response_model=JobState, responses=describe_errors(404))
    def delete_job(job_id: str, request: Request) -> JobState:
        """Cancel a job, or delete a finished one with its results."""
        job = manager.get(job_id)
        manager.remove(job)
        return describe_job(manager, job, request)


def describe_job(manager: JobManager, job: Job, request: Request) -> JobState:
    """Describe a job to a client, with links to what can be fetched."""
    base = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
    done, total = job.progress
    links = {"self": base}
    if job.status == "succeeded":
        names = [name for name in RESULT_FILES if manager.find_result(job, name)]
        links |= {name: f"{base}/{RESULT_FILES[name].name}" for name in names}
        if (job.summary or {}).get("bounds"):
            links |= {"tilejson": f"{base}/tilejson.json"}
    sizes = [*job.sizes, *[None] * len(job.names)]
    return JobState(
        id=job.id,
        status=cast(Any, job.status),
        progress=1.0 if job.status == "succeeded" else done / total if total else 0.0,
        position=manager.position(job),
        frames=[Frame(name=name, bytes=size) for name, size in zip(job.names, sizes, strict=False)],
        options=job.options,
        created=cast(Any, to_datetime(job.created)),
        started=to_datetime(job.started),
        finished=to_datetime(job.finished),
        expires=to_datetime(manager.expires(job)),
        error=cast(Any, job.error),
        links=links,
    )


def refuse_other_pages(request: Request, allowed: tuple[str, ...]) -> None:
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
