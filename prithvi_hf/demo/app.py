# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The page of the demo: what is on it, what happens when something is chosen, and the server that shows it."""

import html
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from prithvi_hf.catalog.providers import choose_source
from prithvi_hf.cli.common import load_model, remote_message, resolve_device
from prithvi_hf.demo.examples import Example, find_examples
from prithvi_hf.demo.guard import Guard
from prithvi_hf.demo.jobs import MEGABYTE, Limits, Mapper, StoppedError, describe_frames, read_options
from prithvi_hf.demo.page import EMPTY, draw_legend, draw_map, draw_scene
from prithvi_hf.demo.places import Catalog
from prithvi_hf.demo.sessions import Session, Sessions


logger = logging.getLogger(__name__)

_KEPT_SECONDS = 3600  # files of a page that nothing is done on
_SWEEP_SECONDS = 30.0
_WAITING = 20  # visitors in the queue
_TELL_SECONDS = 0.2


@dataclass(frozen=True)
class DemoOptions:
    """What a demo shows, and where.

    Attributes:
        model: Folder or Hub id of a model of classes.
        examples: Folder of scenes to choose, or None for none.
        title: Heading of the page; None for one made of the model's name.
        host: Address to listen on; None for that of the variable GRADIO_SERVER_NAME, else this machine alone.
        port: Port to listen on; None for that of the variable GRADIO_SERVER_PORT, else the first free one from 7860.
        device: "auto", "cpu", "cuda" or the like.
        dtype: What the model computes in, as in `predict_scene`.
        limits: What one visitor may ask for.
        catalog: Where scenes of a place are searched for, or None for uploads and examples alone.
    """

    model: str
    examples: str | os.PathLike | None = None
    title: str | None = None
    host: str | None = None
    port: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    limits: Limits = field(default_factory=Limits)
    catalog: Catalog | None = None


def run_demo(options: DemoOptions, warn: Callable[[str], object] = logger.warning) -> None:
    """Show the demo until Ctrl-C or SIGTERM; all files of visitors are in a temporary folder, which goes at the end.

    Args:
        options: What to show.
        warn: Called with texts for who runs the demo.

    Raises:
        ImportError: If gradio is not installed.
        ValueError: If the model or the examples cannot be used.
        OSError: If the port is taken.
    """
    with serve_demo(options, warn) as address:
        print(f"The demo is at {address} (Ctrl-C ends it)", flush=True)
        ended = threading.Event()
        earlier = {one: signal.signal(one, lambda *_: ended.set()) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            ended.wait()
        finally:
            for one, handler in earlier.items():
                signal.signal(one, handler)


@contextmanager
def serve_demo(options: DemoOptions, warn: Callable[[str], object] = logger.warning) -> Iterator[str]:
    """Show the demo while the block runs; gives its address. Arguments and errors are those of `run_demo`."""
    limits = options.limits
    if find_spec("gradio") is None:
        raise ImportError('The demo needs gradio, which is not installed: `pip install "prithvi_hf[demo]"`.')
    if options.catalog is not None:
        if find_spec("pystac_client") is None:
            raise ImportError('--collection needs pystac-client: `pip install "prithvi_hf[demo,fetch]"`.')
        choose_source(options.catalog.collection, options.catalog.stac, options.catalog.sign)
    device = resolve_device(options.device, options.model)
    model, image_processor = load_model(options.model, ("segmentation",))
    mapper = Mapper(model, image_processor, limits, device, options.dtype)
    examples = []
    if options.examples is not None:
        examples = find_examples(options.examples, image_processor, limits.max_megapixels * 1e6, warn)
    max_bytes = int(limits.max_megabytes * MEGABYTE)
    with make_folder() as folder:
        import gradio
        from starlette.middleware import Middleware

        sessions = Sessions(folder)
        page = build_page(mapper, sessions, examples, options.title or name_model(options.model), options.catalog)
        page.queue(max_size=_WAITING)
        try:
            _, address, _ = page.launch(
                server_name=options.host,
                server_port=options.port,
                max_file_size=max_bytes,
                prevent_thread_lock=True,
                quiet=True,
                inline=False,
                share=False,
                pwa=False,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=["gradio", "settings"],
                theme=gradio.themes.Default(primary_hue="blue"),
                css=resources.files("prithvi_hf.demo").joinpath("page.css").read_text(encoding="utf-8"),
                app_kwargs={"middleware": [Middleware(Guard, folder, max_bytes * image_processor.num_frames)]},
            )
        except OSError as error:
            if "port" not in str(error):
                raise
            raise OSError(
                f"--port: expected a port that is free, found {options.port or 'those from 7860'} taken. Choose "
                "another one."
            ) from error
        ended = threading.Event()

        def sweep() -> None:
            while not ended.wait(_SWEEP_SECONDS):
                sessions.sweep(_KEPT_SECONDS)

        thread = threading.Thread(target=sweep, name="sessions", daemon=True)
        thread.start()
        try:
            yield address
        finally:
            ended.set()
            sessions.close_all()  # runs stop
            page.close(verbose=False)
            thread.join()
            sessions.close_all()


@contextmanager
def make_folder() -> Iterator[str]:
    """Make the temporary folder of all files, and name it where gradio reads it, as soon as it is imported."""
    variables = {"GRADIO_TEMP_DIR": "", "GRADIO_ANALYTICS_ENABLED": "False"}
    earlier = {name: os.environ.get(name) for name in variables}
    with tempfile.TemporaryDirectory(prefix="prithvi-demo-", ignore_cleanup_errors=True) as folder:
        os.environ |= {**variables, "GRADIO_TEMP_DIR": folder}
        try:
            yield folder
        finally:
            for name, value in earlier.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def name_model(model: str) -> str:
    """Make a heading of the name of a model."""
    return f"Maps by {Path(model).name or model}"


def build_page(
    mapper: Mapper, sessions: Sessions, examples: Sequence[Example], title: str, catalog: Catalog | None = None
) -> Any:
    """Build the page.

    Args:
        mapper: The model.
        sessions: Where files of visitors go.
        examples: Scenes to choose.
        title: Heading of the page.
        catalog: Where scenes of a place are searched for.

    Returns:
        `gradio.Blocks`.
    """
    import gradio as gr

    count, limits = mapper.image_processor.num_frames, mapper.limits
    is_calibrated = getattr(mapper.model.config, "temperature", 1.0) != 1.0

    def fail(error: Exception) -> NoReturn:
        """Show an error, of the program's own without what only its operator should see."""
        message = remote_message(error)
        if message is None:
            logger.error("A run of the demo failed", exc_info=error)
            message = "The program failed. Who runs this demo finds the reason in its log."
        raise gr.Error(html.escape(message), duration=None, title="This did not work", print_exception=False)

    def open_session(request: gr.Request) -> Session:
        """Give the session of the page that asks."""
        if not request.session_hash:
            raise gr.Error("Expected a call of this page, found another one.", print_exception=False)
        return sessions.open(request.session_hash)

    def take_files(files: list[str], request: gr.Request) -> tuple[Any, ...]:
        """Take the files that were uploaded, again when one is removed or they change places."""
        if not files:  # an example was chosen instead
            return (gr.skip(),) * 4
        session = open_session(request)
        session.stopped.set()  # what runs is of another scene
        try:
            uploads = [Path(file) for file in files]
            if not all(upload.is_file() and upload.resolve().is_relative_to(sessions.root) for upload in uploads):
                raise ValueError(
                    "Expected files that were uploaded for this page, found some that are gone. Upload them again."
                )
            mapper.check_files(uploads)
            session.choose(sessions.take(session, uploads), uploads[0].stem)
        except Exception as error:
            session.choose((), "")
            fail(error)
        return EMPTY, gr.update(visible=False), gr.update(visible=False), gr.update(interactive=True)

    def take_example(event: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        """Take the example that was chosen."""
        session, example = open_session(request), examples[int(event.index)]
        session.stopped.set()
        session.choose(example.files, example.name)
        return None, EMPTY, gr.update(visible=False), gr.update(visible=False), gr.update(interactive=True)

    def clear(files: list[str], request: gr.Request) -> tuple[Any, ...]:
        """Forget the scene when its last file is removed."""
        if files:
            return (gr.skip(),) * 4
        session = open_session(request)
        session.stopped.set()
        session.choose((), "")
        return EMPTY, gr.update(visible=False), gr.update(visible=False), gr.update(interactive=False)

    def show_scene(request: gr.Request, *reading: str) -> str:
        """Show the scene that was chosen."""
        try:
            return draw_scene(mapper.view(open_session(request), read_options(*reading)))
        except Exception as error:
            fail(error)

    def map_scene(request: gr.Request, *reading: str, progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        """Map the scene that was chosen."""
        told = 0.0

        def tell(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told > _TELL_SECONDS or done == total:
                told = time.monotonic()
                text = "Writing the files" if done == total else f"Window {done:,} of {total:,}"
                progress(done / max(total, 1), desc=text)

        progress(0, desc="Opening the scene")
        try:
            view = mapper.map(open_session(request), read_options(*reading), tell)
        except StoppedError:
            gr.Info("Stopped; nothing is kept.", title="Stopped")
            return gr.skip(), gr.skip(), gr.skip()
        except Exception as error:
            fail(error)
        files = gr.update(value=[str(file) for file in view.files], visible=True)
        return draw_map(view), gr.update(value=draw_legend(view, is_calibrated), visible=True), files

    def begin(request: gr.Request) -> tuple[Any, Any]:
        """Begin a run, which may have to wait for those of others."""
        open_session(request).stopped.clear()
        return gr.update(visible=False), gr.update(visible=True)

    def stop(request: gr.Request) -> None:
        """Stop the run of this page."""
        open_session(request).stopped.set()

    def leave(request: gr.Request) -> None:
        """Delete the files of a page that was closed."""
        if request.session_hash:
            sessions.close(request.session_hash)

    labels: dict[Any, str] = dict(mapper.model.config.id2label or {})
    classes = ", ".join(str(labels[index]) for index in sorted(labels))
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, _KEPT_SECONDS), fill_width=True) as page:
        gr.Markdown(
            f"# {_plain(title)}\n"
            f"Upload {describe_frames(count)}{', or choose an example' if examples else ''}: you get a map of the "
            f"classes {_plain(classes)}, their areas, and files for a GIS. The model takes the bands "
            f"{_plain(', '.join(map(str, mapper.image_processor.bands)))}."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=260):
                files = gr.File(
                    label="GeoTIFF" if count == 1 else f"{count} GeoTIFFs, the oldest first",
                    file_count="multiple",
                    file_types=[".tif", ".tiff"],
                    allow_reordering=count > 1,
                    height=150 if count == 1 else 240,
                    elem_id="scene-files",
                )
                _refuse_addresses(files)
                gallery = None
                if examples:
                    gr.Markdown("Examples:")
                    gallery = gr.Gallery(
                        [(_on_grey(example.picture), example.name) for example in examples],
                        label="Examples",
                        show_label=False,
                        columns=3,
                        fit_columns=False,
                        height="auto",
                        object_fit="cover",
                        allow_preview=False,
                        interactive=False,
                        buttons=[],
                        elem_id="examples",
                    )
                if catalog is not None:
                    with gr.Accordion("A place and dates", open=False):
                        bbox = gr.Textbox(
                            label="West, south, east and north in degrees",
                            placeholder="12.2 45.3 12.5 45.5",
                            elem_id="bbox",
                        )
                        dates = gr.Textbox(
                            label="Month or days"
                            if count == 1
                            else f"{count} months or spans of days, the oldest first",
                            info="Of each, the day that shows most of the place without clouds is taken",
                            placeholder="2022-06 or 2022-06-01/2022-06-15",
                            elem_id="dates",
                        )
                        find = gr.Button(f"Find the scene ({', '.join(catalog.collection)})", elem_id="find")
                with gr.Accordion("How the files are read", open=False):
                    reading = [
                        gr.Textbox(
                            label="band_names",
                            info="Names of all bands of a file, in its order, where it does not say them",
                        ),
                        gr.Textbox(label="band_indices", info="Or the positions of the bands above in a file, from 0"),
                        gr.Dropdown(
                            ["auto", "apply", "ignore"],
                            value="auto",
                            label="scale",
                            info="Scale and offset that files state: as the model needs, applied, or ignored",
                        ),
                        gr.Textbox(
                            label="boa_add_offset", info="Sentinel-2 that does not say it: -1000 since 2022, else 0"
                        ),
                        gr.Textbox(label="rescale_factor", info="Instead: multiply the numbers of the files by this"),
                        gr.Textbox(label="rescale_offset", info="And add this, for the units of the model"),
                    ]
                with gr.Row():
                    start = gr.Button("Map the scene", variant="primary", interactive=False, elem_id="start")
                    halt = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
                gr.Markdown(
                    f"At most {limits.max_megabytes:g} MB a file, {limits.max_megapixels:g} million pixels and "
                    f"{limits.max_seconds:g} seconds. Files are deleted when you leave the page."
                )
            with gr.Column(scale=4, min_width=260):
                pictures = gr.HTML(EMPTY, elem_id="pictures", js_on_load=None)
                legend = gr.HTML(visible=False, elem_id="legend", js_on_load=None)
                downloads = gr.File(
                    label="Downloads: map (COG), polygons (GeoPackage), picture (PNG), confidence (COG)",
                    visible=False,
                    interactive=False,
                    file_count="multiple",
                    elem_id="downloads",
                )
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
        results = [pictures, legend, downloads, start]
        shown: dict[str, Any] = {
            **private,
            "show_progress": "full",
            "show_progress_on": pictures,
            "concurrency_limit": 2,
        }
        taken = files.change(take_files, files, results, **private)
        taken.success(show_scene, reading, pictures, **shown)
        for gone in (files.clear, files.delete):
            gone(clear, files, results, **private)
        if gallery is not None:
            chosen = gallery.select(take_example, None, [files, *results], **private)
            chosen.success(show_scene, reading, pictures, **shown)
        if catalog is not None:

            def find_place(bbox: str, dates: str, request: gr.Request) -> tuple[Any, ...]:
                """Take a scene from the catalog."""
                session = open_session(request)
                session.stopped.set()
                session.choose((), "")
                try:
                    folder = session.make_folder("scene")
                    found = catalog.fetch(bbox, dates, mapper.image_processor, folder, limits.max_megapixels)
                    session.choose(found[0], f"{catalog.collection[0]}_{found[1][-1][:10]}", found[1])
                except Exception as error:
                    fail(error)
                finally:
                    if session.closed:
                        shutil.rmtree(session.folder, ignore_errors=True)
                return None, EMPTY, gr.update(visible=False), gr.update(visible=False), gr.update(interactive=True)

            fetched = find.click(
                find_place,
                [bbox, dates],
                [files, *results],
                **{**shown, "concurrency_limit": 2},
                concurrency_id="find",
            )
            fetched.success(show_scene, reading, pictures, **shown)
        swap = [start, halt]
        run = start.click(begin, None, swap, **private)
        run = run.then(
            map_scene,
            reading,
            [pictures, legend, downloads],
            **{**shown, "concurrency_limit": 1},
            concurrency_id="map",
        )
        for over in (run.success, run.failure):
            over(lambda: (gr.update(visible=True), gr.update(visible=False)), None, swap, **private)
        halt.click(stop, None, None, **private)
        page.unload(leave)
    return page


def _refuse_addresses(files: Any) -> None:
    """Make a component for files take those that were uploaded alone: gradio would fetch others by their addresses."""

    async def refuse_address(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise ValueError("Expected a file that was uploaded, found an address. Download it and upload the file.")
        return None if path is None else str(path)

    # Not a subclass: gradio would write an interface of it beside this module.
    files.async_move_resource_to_block_cache = refuse_address
    files.preprocess = lambda payload: [] if payload is None else [file.path for file in payload]


def _plain(text: str) -> str:
    """Escape a text for Markdown with HTML in it."""
    return "".join(f"&#{ord(sign)};" if sign in "\\`*_{}[]<>()#+-!|&~$" else sign for sign in text)


def _on_grey(picture: Any) -> Any:
    """Give a picture without opacity, grey where there is no data."""
    opacity = picture[..., 3:].astype(float) / 255
    return (picture[..., :3] * opacity + 200 * (1 - opacity)).astype("uint8")
