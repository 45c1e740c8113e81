# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What clients send and get, as JSON; the description of the interface (OpenAPI) is made of these classes."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


Text = Annotated[str, Field(min_length=1, max_length=100)]
Names = Annotated[list[Text], Field(min_length=1, max_length=100)]
Status = Literal["fetching", "queued", "running", "succeeded", "failed", "cancelled"]
ExtraOutput = Literal["polygons", "quicklook", "confidence", "entropy", "probabilities"]


class JobOptions(BaseModel):
    """How a scene is mapped; all options have the names and meanings of those of `prithvi-hf predict`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    outputs: list[ExtraOutput] | None = Field(
        default=None,
        max_length=5,
        description="What is written beside the map; by default the quicklook and, of classes with a place on Earth, "
        "the polygons.",
    )
    overlap: float = Field(
        default=0.5, ge=0, le=0.9, description="Fraction of a window that the next one covers again."
    )
    blending: Literal["uniform", "cosine", "gaussian"] = "uniform"
    tta: Literal["none", "d4"] = Field(
        default="none", description="d4: eight turned and mirrored windows, at eight times the cost."
    )
    polygon_classes: Annotated[list[int | Text], Field(min_length=1, max_length=255)] | None = None
    min_area: float = Field(default=0.0, ge=0, description="Smallest polygon in square metres.")
    dates: Names | None = Field(default=None, description="Date of each frame; names of files are not read for that.")
    location: tuple[float, float] | None = Field(
        default=None, description="Latitude and longitude of a scene without a CRS."
    )
    scale: Literal["auto", "apply", "refuse", "ignore"] = "auto"
    boa_add_offset: float | None = Field(default=None, description="Offset of Sentinel-2 numbers, such as -1000 or 0.")
    rescale_factor: float | None = None
    rescale_offset: float | None = None
    band_indices: Annotated[list[int], Field(min_length=1, max_length=100)] | None = None
    band_map: dict[Text, int | Text] | None = Field(default=None, max_length=100)
    band_names: Names | None = None
    grid_mismatch: Literal["warp", "refuse"] = "warp"
    resolution: float | None = Field(default=None, gt=0, description="Side of the map's pixels in units of the CRS.")
    on_read_error: Literal["raise", "nodata"] = "raise"


class UrlRequest(BaseModel):
    """Frames at addresses."""

    model_config = ConfigDict(extra="forbid")

    urls: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(min_length=1, max_length=100)] = Field(
        description="The frames of one scene in time order; each address starts with a prefix that the server allows."
    )
    options: JobOptions = Field(default_factory=JobOptions)


class Frame(BaseModel):
    """One frame of a job."""

    name: str = Field(description="What the client called it: a label, never a path.")
    bytes: int | None = Field(default=None, description="Its size, once it is there.")


class Failure(BaseModel):
    """What went wrong."""

    status: int
    message: str
    expected: str
    found: str
    remedy: str


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: Failure


class JobState(BaseModel):
    """A job."""

    id: str
    status: Status
    progress: float = Field(description="0 to 1, the windows that are done.")
    position: int | None = Field(default=None, description="Jobs before it, of a job that waits.")
    frames: list[Frame]
    options: dict[str, Any]
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    expires: datetime | None = Field(default=None, description="When a finished job is deleted at the latest.")
    error: Failure | None = None
    links: dict[str, str] = Field(description="What can be fetched now, by name.")


class ClassArea(BaseModel):
    """One class of a map."""

    value: int = Field(description="In the map.")
    name: str
    color: str
    pixels: int
    fraction: float = Field(description="Of the pixels with data.")
    area_km2: float | None = Field(description="On the ground; null where nothing tells the place.")


class Summary(BaseModel):
    """What is on a map."""

    height: int
    width: int
    crs: str | None
    bounds: list[float] | None = Field(description="West, south, east and north in degrees (WGS 84).")
    classes: list[ClassArea] | None = Field(description="Null of a map of values.")
    values: dict[str, Any] | None = Field(description="Name, unit and statistics of a map of values, null of classes.")
    nodata_fraction: float
    frame_nodata_fractions: list[float]
    unreadable: list[dict[str, Any]] = Field(description="Areas that could not be read and are nodata.")
    input_check: dict[str, Any] | None = Field(description="How far the bands are from those of the training.")
    dtype: dict[str, Any]
    seconds: dict[str, float]
    versions: dict[str, str]


class ModelInfo(BaseModel):
    """The model of this server."""

    task: str
    bands: list[str]
    num_frames: int
    image_size: list[int]
    classes: list[dict[str, Any]] | None
    quantity: dict[str, Any] | None = Field(description="Name and unit of the values of a regression.")
    takes: list[str] = Field(description='What it takes besides pixels: "time", "location".')
    limits: dict[str, float]
    allow_url: list[str]
    version: str


class Health(BaseModel):
    """How the server is."""

    live: bool
    ready: bool
    status: Literal["ready", "starting", "stopping"]
    waiting: int
    running: int


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe answers that are errors, for OpenAPI."""
    return {status: {"model": ErrorBody} for status in statuses}
