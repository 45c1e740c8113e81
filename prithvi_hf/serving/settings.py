# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a server is started with: the model, and the limits of what its clients may ask for."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path


IDLE_SECONDS = 30.0
"""How long a client or a server of frames may send nothing."""
SMALL_BODY_BYTES = 2**16
"""Of a body of JSON, and of the field `options` of a form."""
MOST = 10_000_000
"""The largest value of a limit: larger ones, of hours for example, end in no date."""
LONGEST_SIDE = 4
"""Times the side of the largest square scene: memory grows with the width of a scene."""


@dataclass(frozen=True)
class Limits:
    """What clients may ask for.

    Attributes:
        max_upload: Megabytes of the frames of one job.
        max_pixels: Millions of pixels of a frame, and of a map.
        max_queue: Jobs that wait, those whose frames are on their way among them.
        upload_timeout: Seconds until the frames of a job must have arrived.
        job_timeout: Seconds that a job may run.
        keep_hours: Hours after which finished jobs are deleted.
        keep_results: Finished jobs that are kept; the oldest are deleted first.

    Raises:
        ValueError: If one is not a number above 0, and at most `MOST`.
    """

    max_upload: float = 2000.0
    max_pixels: float = 130.0
    max_queue: int = 16
    upload_timeout: float = 900.0
    job_timeout: float = 3600.0
    keep_hours: float = 24.0
    keep_results: int = 100

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            wanted = "above 0" if not value > 0 else f"of at most {MOST:,}"  # NaN is not above 0
            if not 0 < value <= MOST:
                raise ValueError(f"Expected a number {wanted} for --{one.name}, found {value:g}. Correct it.")

    @property
    def upload_bytes(self) -> int:
        """Bytes of the frames of one job."""
        return int(self.max_upload * 1e6)

    @property
    def pixels(self) -> int:
        """Pixels of a frame or a map."""
        return int(self.max_pixels * 1e6)

    @property
    def side(self) -> int:
        """Pixels along a side of a frame or a map."""
        return LONGEST_SIDE * math.isqrt(self.pixels)


@dataclass(frozen=True)
class Settings:
    """What a server is started with.

    Attributes:
        model: Folder of a model, or a Hub id.
        work_dir: Folder of the jobs, of this server alone.
        limits: What clients may ask for.
        device: Where the model runs, "auto" for a GPU where there is one.
        dtype: What it computes in, as in `predict_scene`.
        batch_size: Windows in one forward pass.
        trust_remote_code: Whether an exported model that is a pickle may be loaded.
        token: What clients have to show; None for nothing. Not part of the text of this object.
        allow_url: Prefixes of the addresses that frames may be fetched from.
        allow_private_host: Names of hosts whose addresses may be private ones.
    """

    model: str
    work_dir: Path
    limits: Limits = field(default_factory=Limits)
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int = 8
    trust_remote_code: bool = False
    token: str | None = field(default=None, repr=False)
    allow_url: tuple[str, ...] = ()
    allow_private_host: tuple[str, ...] = ()
