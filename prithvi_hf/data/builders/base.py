# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What the builders of this package share: columns, rows, and a cache that never serves a folder that has changed."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from datasets import BuilderConfig, Features, GeneratorBasedBuilder, List, SplitGenerator, Value, config
from datasets.utils import logging

from prithvi_hf.data.builders.files import list_files
from prithvi_hf.data.builders.splits import PUBLISHED, OfficialSplits, check_split_options
from prithvi_hf.data.geotiff import GeoTiff


logger = logging.get_logger(__name__)

# Part of every cache key: raise it when rows of the same files come out differently.
_CODE_VERSION = "2"
# What a folder's listing is keyed on; logs or outputs beside the data change nothing.
_DATA_SUFFIXES = (".tif", ".tiff", ".csv", ".txt", ".json", ".geojson")


def chip_features(
    band_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
    *,
    frames_are_files: bool = False,
    multi_date: bool = False,
) -> Features:
    """Columns of a data set of chips: `image`, `mask`, `id`, and `date` or `dates`.

    Args:
        band_names (`Sequence[str]`, *optional*): names of an image file's bands, in file order.
        class_names (`Sequence[str]`, *optional*): names of the classes, in the order of a model's labels.
        class_colors (`Sequence[str]`, *optional*): their colours, "#rrggbb".
        frames_are_files (`bool`, *optional*, defaults to `False`): `image` is a list of GeoTIFFs, one a frame.
        multi_date (`bool`, *optional*, defaults to `False`): there is a list `dates`, one a frame, in place of `date`.
    """
    image = GeoTiff(band_names=_as_list(band_names))
    mask = GeoTiff(class_names=_as_list(class_names), class_colors=_as_list(class_colors))
    date = {"dates": List(Value("string"))} if multi_date else {"date": Value("string")}
    return Features({"image": List(image) if frames_are_files else image, "mask": mask, "id": Value("string"), **date})


def _as_list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


class ChipBuilder(GeneratorBasedBuilder):
    """Base of builders that pair image and mask files and yield one row a chip, without reading a pixel.

    Subclasses set `DATASET_NAME` and give `_info` and `_rows_by_split`. `datasets` names a builder's cache after its
    module and options only, so two versions of a folder would share one; here the names, sizes and times of its files
    are part of the key.

    Args:
        data_dir (`str`, *optional*): the folder of the data set.
        cache_dir (`str`, *optional*): where `datasets` keeps its tables.
        kwargs: options of the builder's config, and other arguments of `datasets.DatasetBuilder`.
    """

    DATASET_NAME: ClassVar[str]

    def __init__(self, *, data_dir: str | os.PathLike | None = None, **kwargs: Any) -> None:
        if data_dir is not None:
            data_dir = os.path.abspath(os.path.expanduser(data_dir))
        kwargs.setdefault("dataset_name", self.DATASET_NAME)
        places = [] if data_dir is None else [data_dir, *self._other_places(data_dir, kwargs)]
        kwargs.setdefault("hash", _content_key(self.DATASET_NAME, places))
        super().__init__(data_dir=data_dir, **kwargs)

    @classmethod
    def _other_places(cls, data_dir: str, options: Mapping[str, Any]) -> list[str]:
        """Files and folders outside `data_dir` that the options name and the cache must be keyed on as well."""
        return []

    def _rows_by_split(self, dl_manager: Any) -> Mapping[str, list[dict[str, Any]]]:
        """Returns the checked rows of each split; errors raised here reach the user as they are."""
        raise NotImplementedError

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        splits = self._rows_by_split(dl_manager)
        # A list is what `datasets` divides among the shards of a stream and the processes of `num_proc`.
        return [SplitGenerator(name=name, gen_kwargs={"rows": rows}) for name, rows in splits.items()]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            yield row["id"], row


@dataclass
class HubChipConfig(BuilderConfig):
    """Options of data sets that lie on the Hugging Face Hub.

    Args:
        repository (`str`, *optional*): data set repository, "owner/name", to download from without `data_dir`; None is
            the official one. (`datasets` has an argument `repo_id` of its own.)
        revision (`str`, *optional*): its branch, tag or commit; None is "main".
    """

    repository: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_dir is not None and (self.repository or self.revision):
            raise ValueError(
                f"Options of the data set: expected repository and revision without data_dir, found {self.repository} "
                f"and {self.revision} beside {self.data_dir}. Leave out data_dir to download, or the others not to."
            )


class HubChipBuilder(ChipBuilder):
    """Base of builders of data sets that lie on the Hub: without `data_dir` they are downloaded whole, and extracted.

    Subclasses set `REPOSITORY` and give `_rows_of_folder` in place of `_rows_by_split`. [`load_dataset`] downloads
    first and then builds from the folder, so that the cache is keyed on its files; a builder that is used by itself
    downloads when it prepares or streams.
    """

    REPOSITORY: ClassVar[str]
    BUILDER_CONFIG_CLASS = HubChipConfig

    def __init__(self, *, cache_dir: str | os.PathLike | None = None, **kwargs: Any) -> None:
        self._download_dir = config.DOWNLOADED_DATASETS_PATH
        if cache_dir is not None:
            self._download_dir = os.path.join(cache_dir, config.DOWNLOADED_DATASETS_DIR)
        super().__init__(cache_dir=cache_dir, **kwargs)

    def download(self) -> str:
        """Downloads the data set, if that has not been done, and returns its folder; see [`download_dataset`]."""
        from prithvi_hf.data.builders.download import download_dataset

        return download_dataset(
            self.config.repository or self.REPOSITORY,
            root=self._download_dir,
            revision=self.config.revision,
            token=self.token,
        )

    def _rows_by_split(self, dl_manager: Any) -> Mapping[str, list[dict[str, Any]]]:
        return self._rows_of_folder(self.config.data_dir or self.download())

    def _rows_of_folder(self, data_dir: str) -> Mapping[str, list[dict[str, Any]]]:
        """Returns the checked rows of each split of a folder that holds the data set."""
        raise NotImplementedError


@dataclass
class OfficialSplitsConfig(HubChipConfig):
    """Options of data sets that were published with training and validation chips only.

    Args:
        split_scheme (`str`, *optional*, defaults to "published"): "published" gives the validation chips as `test`
            too, for the original reports them, and says so; "three_way" divides them into `validation` and `test`,
            and leaves training chips from where test chips lie out.
        split_seed (`int`, *optional*, defaults to 0): which of the validation chips "three_way" makes test chips.
        repository (`str`, *optional*): as in [`HubChipConfig`].
        revision (`str`, *optional*): as in [`HubChipConfig`].
    """

    split_scheme: str = PUBLISHED
    split_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_split_options("Options of the data set", self.split_seed, self.split_scheme)


class OfficialSplitsBuilder(HubChipBuilder):
    """Base of builders whose data sets were published with training and validation chips only."""

    BUILDER_CONFIG_CLASS = OfficialSplitsConfig

    def as_dataset(self, split: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in `datasets.DatasetBuilder`; warns when `test` is given and is not independent of `validation`."""
        self._warn_of_test(split)
        return super().as_dataset(split, *args, **kwargs)

    def as_streaming_dataset(self, split: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in `datasets.DatasetBuilder`; warns when `test` is given and is not independent of `validation`."""
        self._warn_of_test(split)
        return super().as_streaming_dataset(split, *args, **kwargs)

    def _arrange(
        self,
        rows: Mapping[str, Mapping[str, dict[str, Any]]],
        group_of: Callable[[Sequence[str], str], Mapping[str, str]],
        kind: str,
    ) -> dict[str, list[dict[str, Any]]]:
        """Divides the official rows, `{split: {chip id: row}}`, by `split_scheme`; see [`OfficialSplits.arrange`]."""
        official = OfficialSplits(self.DATASET_NAME, list(rows.get("train", ())), list(rows.get("validation", ())))
        splits = official.arrange(self.config.split_scheme, self.config.split_seed, group_of, kind)
        every = {chip: row for chips in rows.values() for chip, row in chips.items()}
        return {split: [every[chip] for chip in chips] for split, chips in splits.items()}

    def _warn_of_test(self, split: Any) -> None:
        # Here and not where rows are made: those come from the cache the next time.
        if self.config.split_scheme == PUBLISHED and (split is None or "test" in str(split)):
            logger.warning(
                f"{self.DATASET_NAME}: test holds the validation chips, as the original evaluates, so a checkpoint "
                "that is chosen by validation is reported too well. An independent test: split_scheme='three_way'."
            )


def _content_key(name: str, places: Iterable[str]) -> str:
    digest = hashlib.sha256(f"{name} {_CODE_VERSION}".encode())
    for place in places:
        files = {place: place} if os.path.isfile(place) else list_files(place)
        for relative, path in files.items():
            if relative.lower().endswith(_DATA_SUFFIXES):
                digest.update(f"{relative}\0{_version_of(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _version_of(path: str) -> str:
    """Size and time of a file. One that is gone has its own: what reads it says so, and of all such chips at once."""
    try:
        status = os.stat(path)
    except OSError:
        return "gone"
    return f"{status.st_size}\0{status.st_mtime_ns}"
