# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The addresses of results: files of a job, and tiles of its map."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.jobs import Job, JobManager
from prithvi_hf.serving.results import RESULT_FILES, NoTileError, find_zooms, render_tile
from prithvi_hf.serving.schemas import Summary, describe_errors


def add_file_routes(api: APIRouter, manager: JobManager) -> None:
    """Add the addresses of the files of jobs, one for each kind."""

    def add_result(name: str) -> None:
        """Add the address of a kind of result."""
        record = RESULT_FILES[name]

        def get_result(job_id: str) -> FileResponse:
            job, path = find_result(manager, job_id, name)
            stem = Path(job.names[0]).stem or "scene"
            return FileResponse(path, media_type=record.media_type, filename=f"{stem}{record.ending}")

        path = f"/jobs/{{job_id}}/{record.name}"
        text = "What is on the map" if name == "summary" else f"The {name} of a job"
        answer: dict[str, Any] = {"content": {record.media_type: {"schema": {"type": "string", "format": "binary"}}}}
        api.get(
            path,
            response_class=FileResponse,
            responses={**describe_errors(404, 409), 200: {"model": Summary} if name == "summary" else answer},
            summary=text,
            description=f"{text}; ranges of bytes can be asked for.",
            operation_id=f"get_{name}",
        )(get_result)
        api.head(path, include_in_schema=False)(get_result)  # which GDAL asks first

    for name in RESULT_FILES:
        add_result(name)


def add_tile_routes(api: APIRouter, manager: JobManager) -> None:
    """Add the addresses of the tiles of maps."""

    def find_map(job_id: str) -> tuple[Job, Path, dict[str, Any]]:
        """Find a map that has tiles, and its summary."""
        job, path = find_result(manager, job_id, "map")
        summary = job.summary or {}
        if not summary.get("bounds"):
            raise refuse_tile(NoTileError("a map without a place on Earth, such as a CRS says it"))
        return job, path, summary

    @api.get("/jobs/{job_id}/tilejson.json", responses=describe_errors(404, 409))
    def get_tilejson(job_id: str, request: Request) -> dict[str, Any]:
        """Describe the tiles of a map (TileJSON 3.0)."""
        job, path, summary = find_map(job_id)
        try:
            least, most = find_zooms(path)
        except NoTileError as error:
            raise refuse_tile(error) from error
        west, south, east, north = summary["bounds"]
        if west > east or west < -180 or east > 180:  # across 180 degrees
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
        responses={**describe_errors(404, 409), 200: {"content": {"image/png": {}}}},
    )
    def get_tile(job_id: str, z: int, x: int, y: int) -> Response:
        """Draw a tile of a map in its own colours."""
        _, path, summary = find_map(job_id)
        try:
            content = render_tile(path, z, x, y, summary.get("values"))
        except NoTileError as error:
            raise refuse_tile(error) from error
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


def find_result(manager: JobManager, job_id: str, name: str) -> tuple[Job, Path]:
    """Find a result of a job.

    Raises:
        ApiError: If there is none; it says why.
    """
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


def refuse_tile(error: NoTileError) -> ApiError:
    """Make the error of a tile that is not there."""
    return ApiError(404, "a tile of the map", str(error), "Its TileJSON says where the map is.")
