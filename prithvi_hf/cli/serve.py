# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf serve`: maps over HTTP."""

import argparse
import os
import re
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prithvi_hf.cli.common import TRUST_OPTION, Commands, add_command, import_quickly
from prithvi_hf.cli.predict_options import GROUPS
from prithvi_hf.serving.settings import Limits, Settings


if TYPE_CHECKING:
    from prithvi_hf.rasters.opening import FrameOptions  # noqa: F401

TOKEN_VARIABLE = "PRITHVI_HF_TOKEN"  # noqa: S105 - its name
_EPILOG = f"""examples:
  prithvi-hf serve --model OUT
  {TOKEN_VARIABLE}=... prithvi-hf serve --model OUT --host 0.0.0.0 --work_dir /var/lib/prithvi
  prithvi-hf serve --model OUT --allow_url https://data.example.org/hls/

A client sends a scene to /v1/segment, asks for its job, and fetches the map. The page /docs has examples. SIGTERM or
Ctrl-C stops the server: a job that runs has --grace seconds to end, and then goes on when a server is started with the
same --work_dir.
"""
_DRAIN_SECONDS = 10  # for answers on their way when the server stops
_CONNECTIONS = 1000
_HOST_NAME = re.compile(r"[\w.-]+")
_HOW = GROUPS["how the work is done"]
_GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "where it listens, and to whom": {
        "--host": {"default": "127.0.0.1", "help": "address to listen at (default 127.0.0.1: this machine alone)"},
        "--port": {"type": int, "default": 8000, "help": "port (default 8000; 0 for any that is free)"},
        "--token": {
            "metavar": "TOKEN",
            "help": f"what clients have to show; better in the variable {TOKEN_VARIABLE}, which others on the machine "
            "cannot see (default: none)",
        },
        "--allow_origin": {
            "nargs": "+",
            "default": [],
            "metavar": "ORIGIN",
            "help": "web pages that may use the server from another origin, e.g. https://maps.example.org",
        },
        "--allow_host": {
            "nargs": "+",
            "default": [],
            "metavar": "NAME",
            "help": "names that clients without a token may use besides localhost, addresses and --host, such as that "
            "of a proxy, e.g. maps.example.org",
        },
        "--root_path": {
            "default": "",
            "metavar": "PATH",
            "help": "what a proxy in front of the server takes off the beginning of paths, e.g. /floods",
        },
    },
    "addresses that frames may be fetched from": {
        "--allow_url": {
            "nargs": "+",
            "default": [],
            "metavar": "PREFIX",
            "help": "beginnings of allowed addresses, e.g. https://data.example.org/hls/ (default: none)",
        },
        "--allow_private_host": {
            "nargs": "+",
            "default": [],
            "metavar": "HOST",
            "help": "hosts of --allow_url that may have addresses of a private network (default: none)",
        },
    },
    "limits": {
        "--max_upload": {"metavar": "MB", "help": "megabytes of the frames of one job"},
        "--max_pixels": {"metavar": "MILLIONS", "help": "millions of pixels of a frame or a map"},
        "--max_queue": {"type": int, "metavar": "JOBS", "help": "jobs that wait; more are told to come again (429)"},
        "--upload_timeout": {"metavar": "SECONDS", "help": "seconds until the frames of a job must have arrived"},
        "--job_timeout": {"metavar": "SECONDS", "help": "seconds that a job may run"},
        "--keep_hours": {"metavar": "HOURS", "help": "hours after which finished jobs are deleted"},
        "--keep_results": {"type": int, "metavar": "JOBS", "help": "finished jobs that are kept, the newest"},
    },
    "how the work is done": {
        "--work_dir": {
            "default": "prithvi-serve",
            "metavar": "DIR",
            "help": "folder of the jobs, of this server alone (default prithvi-serve)",
        },
        "--grace": {
            "type": float,
            "default": 30.0,
            "metavar": "SECONDS",
            "help": "what the job that runs has to end when the server is stopped (default 30)",
        },
        "--device": {"default": "auto", "help": '"auto" (default: a CUDA GPU where there is one), "cpu", "cuda:1"'},
        "--dtype": _HOW["--dtype"],
        "--batch_size": GROUPS["how the model slides over the scene"]["--batch_size"],
        "--trust_remote_code": TRUST_OPTION,
        "--quiet": {"action": "store_true", "help": "print neither requests nor jobs"},
    },
}


def add_parser(commands: Commands) -> None:
    """Describe `serve`."""
    text = "map scenes that clients send over HTTP: a queue of jobs, maps, polygons, tiles"
    parser = add_command(commands, "serve", text, epilog=_EPILOG)
    parser.add_argument("--model", required=True, help="folder of a fine-tuned or exported model, or a Hub id")
    limits = Limits()
    for title, options in _GROUPS.items():
        group = parser.add_argument_group(title)
        for flag, settings in options.items():
            default = {"default": settings["choices"][0]} if "choices" in settings else {}
            if title == "limits":
                value = getattr(limits, flag[2:])
                settings = {"type": float, **settings, "help": f"{settings['help']} (default {value:g})"}
                default = {"default": value}
            group.add_argument(flag, **{**default, **settings})


def read_settings(options: argparse.Namespace) -> Settings:
    """Check what needs no model, and give what the server is started with."""
    token = options.token if options.token is not None else os.environ.get(TOKEN_VARIABLE)
    if token is not None and (not token.strip() or not token.isascii() or not token.isprintable()):
        raise ValueError(
            f"Expected a token of ASCII letters after --token or in {TOKEN_VARIABLE}, found an empty one or other "
            "characters. Is a variable of the shell not set?"
        )
    if not 0 <= options.port <= 65535:
        raise ValueError(f"Expected --port 0 to 65535, found {options.port}. Correct it.")
    if not (0 <= options.grace < 1e6):
        raise ValueError(f"Expected --grace in seconds, at least 0, found {options.grace:g}. Correct it.")
    if options.batch_size < 1:
        raise ValueError(f"Expected --batch_size of at least 1, found {options.batch_size}. Correct it.")
    if options.root_path and not options.root_path.startswith("/"):
        raise ValueError(f"Expected --root_path to begin with /, found {options.root_path!r}. Correct it.")
    for name in options.allow_host:
        if not _HOST_NAME.fullmatch(name):
            raise ValueError(
                "Expected --allow_host to be names such as maps.example.org, without https:// and a port, found "
                f"{name!r}. Correct it."
            )
    return Settings(
        model=options.model,
        work_dir=Path(options.work_dir),
        limits=Limits(**{flag[2:]: getattr(options, flag[2:]) for flag in _GROUPS["limits"]}),
        device=options.device,
        dtype=options.dtype,
        batch_size=options.batch_size,
        trust_remote_code=options.trust_remote_code,
        token=token,
        allow_url=tuple(options.allow_url),
        allow_private_host=tuple(options.allow_private_host),
    )


def run(options: argparse.Namespace) -> int:
    """Serve until a signal; the exit status is 0 then."""
    settings = read_settings(options)
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import rio_tiler  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ImportError(
            f"The server needs the package {error.name}, which cannot be imported here: install the extra `serve`, "
            'pip install "prithvi_hf[serve]".'
        ) from error
    with import_quickly():
        from importlib.metadata import version

        import prithvi_hf
        from prithvi_hf.cli.common import explain_loading, load_image_processor
        from prithvi_hf.serving.app import create_app
        from prithvi_hf.serving.errors import TextError
        from prithvi_hf.serving.frames import explain_frame_error, open_frames
        from prithvi_hf.serving.jobs import JobManager
        from prithvi_hf.serving.worker import WorkerError

    image_processor = load_image_processor(options.model)
    with explain_loading(options.model):
        config = prithvi_hf.PrithviConfig.from_pretrained(options.model)

    def check(paths: list[Path], names: list[str], given: dict[str, Any]) -> None:
        """Refuse frames that are not a scene for the model; their headers are read."""
        try:
            open_frames(paths, names, given, image_processor, config, manager.worker.info["task"], settings.limits)
        except Exception as error:
            message = explain_frame_error(error, paths, names)
            if message is None or isinstance(error, OSError):
                raise
            raise TextError(422, message) from error

    try:
        listener = socket.create_server(
            (options.host, options.port), family=socket.AF_INET6 if ":" in options.host else socket.AF_INET
        )
    except OSError as error:
        raise OSError(
            f"Expected to listen at {options.host} port {options.port}, found that it cannot be ({error.strerror}). "
            "Choose another --port, or stop the program that has it."
        ) from error
    manager = JobManager(settings, check)
    stage, hurry = "starting", threading.Event()

    def on_signal(number: int, frame: object) -> None:
        """End what is starting, or hand the job that runs back at once: at a second signal, the first is uvicorn's."""
        if stage == "starting":
            raise KeyboardInterrupt
        if stage == "stopping":
            hurry.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        try:
            manager.start()
        except WorkerError as error:
            raise ValueError(str(error)) from error
        app = create_app(
            manager,
            image_processor,
            config,
            version=version("prithvi_hf"),
            root_path=options.root_path.rstrip("/"),
            allow_origin=tuple(options.allow_origin),
            allow_host=(options.host, *options.allow_host),
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="h11",  # which limits the size of headers
                ws="none",
                lifespan="off",
                log_level="warning" if options.quiet else "info",
                server_header=False,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        host, port = listener.getsockname()[:2]
        if settings.token is None and options.host not in ("127.0.0.1", "::1", "localhost"):
            print(
                "prithvi-hf: warning: anyone who reaches this server may use it: set a token "
                f"({TOKEN_VARIABLE}), or let a proxy check who asks.",
                file=sys.stderr,
            )
        print(f"maps by {options.model} at http://{f'[{host}]' if ':' in host else host}:{port}", file=sys.stderr)
        stage = "serving"
        server.run(sockets=[listener])
    finally:
        stage = "stopping"
        manager.close(options.grace, hurry)
        listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
