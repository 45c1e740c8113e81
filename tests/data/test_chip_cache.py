"""The cache of decoded chips: the same pixels as the files, made once, whole or not at all."""

import gc
import multiprocessing
import os
import pickle
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from torch.utils.data import DataLoader, Subset

from prithvi_hf.data import (
    SegmentationTransform,
    audit_split,
    cache_chips,
    clear_decoded_cache,
    collate_chips,
)
from prithvi_hf.data import chip_cache as build
from prithvi_hf.data.chip_cache import CachedChips, CachedRaster, ChipCacheError
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.raster_factory import BANDS, SEN1FLOODS11_CODES, cut_off, reflectance, write_mask, write_raster


def make_processor(**options):
    return PrithviImageProcessor(bands=list(BANDS), ignore_values=[-1], num_labels=2, **options)


def as_dataset(images, masks, frames=False):
    image = List(GeoTiff()) if frames else GeoTiff()
    features = Features({"image": image, "mask": GeoTiff(), "id": Value("string"), "date": Value("string")})
    rows = {
        "image": images,
        "mask": masks,
        "id": [f"chip{i}" for i in range(len(images))],
        "date": [None] * len(images),
    }
    return Dataset.from_dict(rows, features=features)


def plain_chips(folder, count=4, size=48):
    """Thirteen described bands, of which six are needed; sizes differ, and one chip holds nodata values."""
    images, masks = [], []
    for seed in range(count):
        side = (size + 8 * (seed % 2), size)
        pixels = reflectance(13, side, seed)
        if seed == 1:
            pixels[:, :9] = 0
            pixels[3, 20:24] = -9999
        path = write_raster(folder / f"{seed}.tif", pixels, descriptions=SEN1FLOODS11_CODES, nodata=0)
        images.append(str(path))
        masks.append(str(write_mask(folder / f"{seed}_mask.tif", side, seed)))
    return as_dataset(images, masks), make_processor(
        nodata_value=-9999, rescale_factor=1e-4, image_mean=0.2, image_std=0.1
    )


def float_chips(folder):
    """float32 with NaN and infinity, one file in which all is finite, and a nodata tag."""
    images, masks = [], []
    for seed in range(3):
        pixels = reflectance(6, 40, seed).astype(np.float32) / 10_000
        if seed < 2:
            pixels[seed, 3:9], pixels[:, 20:22], pixels[2, 30, 30] = np.nan, -9999, np.inf
        images.append(str(write_raster(folder / f"{seed}.tif", pixels, descriptions=BANDS, nodata=-9999)))
        masks.append(str(write_mask(folder / f"{seed}_mask.tif", 40, seed)))
    return as_dataset(images, masks), make_processor(nodata_rule="any", image_mean=0.2, image_std=0.1)


def masked_chips(folder):
    """A mask band in the file, and labels that are ignored there."""
    import rasterio

    images, masks = [], []
    for seed in range(2):
        path = write_raster(folder / f"{seed}.tif", reflectance(6, 40, seed), descriptions=BANDS)
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.random.default_rng(seed).random((40, 40)) > 0.3)
        images.append(str(path))
        masks.append(str(write_mask(folder / f"{seed}_mask.tif", 40, seed)))
    return as_dataset(images, masks), make_processor(mask_nodata_labels=True, nodata_replacement=7)


def stacked_chips(folder):
    """Three dates of six bands in one file, in the order of the crop recipe."""
    images = [str(write_raster(folder / f"{i}.tif", reflectance(18, 40, i))) for i in range(2)]
    masks = [str(write_mask(folder / f"{i}_mask.tif", 40, i)) for i in range(2)]
    return as_dataset(images, masks), make_processor(num_frames=3, frame_order="original_crop")


def chips_of_frames(folder):
    """Two files a chip, of different data types."""
    images = []
    for chip in range(2):
        first = write_raster(folder / f"{chip}a.tif", reflectance(6, 40, chip), descriptions=BANDS, nodata=0)
        second = reflectance(6, 40, chip + 9).astype(np.float32)
        images.append([str(first), str(write_raster(folder / f"{chip}b.tif", second, descriptions=BANDS))])
    masks = [str(write_mask(folder / f"{i}_mask.tif", 40, i)) for i in range(2)]
    return as_dataset(images, masks, frames=True), make_processor(num_frames=2)


KINDS = [plain_chips, float_chips, masked_chips, stacked_chips, chips_of_frames]


@pytest.fixture
def chips(tmp_path):
    return plain_chips(tmp_path / "chips")


def cached(chips, tmp_path, name="train"):
    dataset, processor = chips
    return cache_chips(dataset, processor, name, tmp_path / "cache", show_progress=False)


def folders(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "prithvi_hf_decoded").iterdir() if path.is_dir())


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert first[key].dtype == second[key].dtype
        assert torch.equal(first[key], second[key]), key


# ----------------------------------------------------------------- the same pixels


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("augmentation", ["none", "d4"])
@pytest.mark.parametrize("crop", [16, 64])
def test_training_batches_are_those_of_the_files(make, augmentation, crop, tmp_path):
    dataset, processor = make(tmp_path)
    transform = SegmentationTransform(processor, crop, augmentation, train=True)
    chips = cached((dataset, processor), tmp_path).with_transform(transform)
    for seed in range(3):
        batches = []
        for rows in (chips, dataset.with_transform(transform)):
            torch.manual_seed(seed)
            batches.append(collate_chips(rows.__getitems__([1, 0, 1])))
        assert_same(*batches)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("crop", [16, 64])
def test_normalising_later_gives_the_same_bits(make, crop, tmp_path):
    dataset, processor = make(tmp_path)
    batches = []
    for normalize in (True, False):
        torch.manual_seed(5)
        transform = SegmentationTransform(processor, crop, "d4", train=True, normalize=normalize)
        batches.append(collate_chips(dataset.with_transform(transform).__getitems__([0, 1, 0])))
    file_values, labels = batches[1]["file_values"], batches[1]["labels"]
    assert labels.dtype == torch.int16
    pixel_values = processor.normalize_file_values(file_values)
    assert_same(batches[0], {"pixel_values": pixel_values, "labels": labels.long()})
    assert file_values.dtype == (torch.float32 if make in (float_chips, chips_of_frames) else torch.int16)


def test_labels_keep_their_numbers_where_two_bytes_may_not_hold_them(tmp_path):
    dataset, processor = plain_chips(tmp_path)
    processor.num_labels = None
    transform = SegmentationTransform(processor, 16, train=True, normalize=False)
    batch = collate_chips(dataset.with_transform(transform).__getitems__([0, 1]))
    assert batch["labels"].dtype == torch.int64


def test_options_changed_between_batches_count(tmp_path):
    dataset, processor = plain_chips(tmp_path)
    transform = SegmentationTransform(processor, 16, train=True)
    chips = cached((dataset, processor), tmp_path).with_transform(transform)
    for mean in (0.0, 100.0):
        processor.image_mean = [mean] * 6
        torch.manual_seed(0)
        found = collate_chips(chips.__getitems__([0, 1]))
        torch.manual_seed(0)
        fresh = SegmentationTransform(processor, 16, train=True)
        assert_same(found, collate_chips(dataset.with_transform(fresh).__getitems__([0, 1])))


def test_a_transform_that_has_seen_chips_travels_to_another_process(chips, tmp_path):
    transform = SegmentationTransform(chips[1], 16, "d4", train=True)
    rows = cached(chips, tmp_path).with_transform(transform)
    rows.__getitems__([0, 1])
    batches = []
    for own in (rows, pickle.loads(pickle.dumps(rows))):
        torch.manual_seed(3)
        batches.append(collate_chips(own.__getitems__([1, 0])))
    assert_same(*batches)


@pytest.mark.parametrize("make", KINDS)
def test_whole_chips_rows_and_audit_are_those_of_the_files(make, tmp_path):
    dataset, processor = make(tmp_path)
    chips = cached((dataset, processor), tmp_path)
    whole = SegmentationTransform(processor)
    for index in range(len(dataset)):
        assert_same(chips.with_transform(whole)[index], dataset.with_transform(whole)[index])
        assert chips[index]["id"] == dataset[index]["id"]
    audits = [audit_split(rows, processor, 2, "train", show_progress=False) for rows in (chips, dataset)]
    assert audits[0] == audits[1]


@pytest.mark.parametrize("make", KINDS)
def test_crops_are_those_of_the_image_processor(make, tmp_path):
    """The way of the training crops gives what a call of the processor gives of the same windows."""
    dataset, processor = make(tmp_path)
    row = cached((dataset, processor), tmp_path)[1]
    frames = row["image"] if isinstance(row["image"], list) else [row["image"]]
    for window in ((0, 0, 16, 16), (5, 11, 20, 13)):
        parts, mask = [frame.select(window=window) for frame in frames], row["mask"].select(window=window)
        image = tuple(parts) if len(parts) > 1 else parts[0]
        expected = processor([image], [mask], return_tensors="pt")
        for check_units in (True, False):
            read = processor.read_image(image, mask, check_units)
            np.testing.assert_array_equal(read.write_pixel_values(), expected["pixel_values"][0].numpy())
            np.testing.assert_array_equal(read.labels, expected["labels"][0].numpy())


def test_rasters_are_those_of_the_files(chips, tmp_path):
    dataset, _ = chips
    for row, other in zip(dataset, cached(chips, tmp_path), strict=True):
        for own, file in ((other["image"], row["image"]), (other["mask"], row["mask"])):
            assert isinstance(own, CachedRaster)
            for name in ("name", "path", "dtype", "crs", "transform", "nodata", "descriptions", "shape", "scales"):
                assert getattr(own, name) == getattr(file, name), name
            np.testing.assert_array_equal(own.read(), file.read())
            np.testing.assert_array_equal(own.read(window=(3, 4, 5, 6)), file.read(window=(3, 4, 5, 6)))
            assert own.read().flags.writeable
            assert own.read_nodata_mask() is None
        image, file = other["image"], row["image"]
        np.testing.assert_array_equal(image.read([8, 1], (1, 2, 3, 4)), file.read([8, 1], (1, 2, 3, 4)))
        assert image.select([8, 1]).transform == file.select([8, 1]).transform
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).read([1]), file.read([1]))


def test_pixels_in_the_cache_are_not_decoded_again(chips, tmp_path, monkeypatch):
    dataset = cached(chips, tmp_path)
    monkeypatch.setattr(GeoTiffRaster, "_decode", lambda *_: pytest.fail("a file was decoded"))
    transform = SegmentationTransform(chips[1], 16, "d4", train=True)
    assert len(dataset.with_transform(transform).__getitems__([0, 1, 2, 3])) == 4


def test_without_the_cache_only_bands_and_window_are_read(chips, monkeypatch):
    asked = []
    decode = GeoTiffRaster._decode

    def spy(self, window, indexes):
        asked.append((indexes, *window[2:]))
        return decode(self, window, indexes)

    monkeypatch.setattr(GeoTiffRaster, "_decode", spy)
    chips[0].with_transform(SegmentationTransform(chips[1], 16, train=True)).__getitems__([0])
    assert asked == [([2, 3, 4, 9, 12, 13], 16, 16), ([1], 16, 16)]


# ----------------------------------------------------------------- made once, and anew when it must be


def test_a_finished_cache_is_found(chips, tmp_path, monkeypatch):
    cached(chips, tmp_path)
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("made again"))
    assert len(cached(chips, tmp_path)) == 4


def test_a_changed_file_is_decoded_again(chips, tmp_path):
    dataset, _ = chips
    before = cached(chips, tmp_path)[0]["image"].read([1])
    write_raster(Path(dataset[0]["image"].path), reflectance(13, 48, 77), descriptions=SEN1FLOODS11_CODES, nodata=0)
    after = cached(chips, tmp_path)[0]["image"].read([1])
    np.testing.assert_array_equal(after, dataset[0]["image"].read([1]))
    assert not np.array_equal(before, after)


def test_an_older_state_is_removed_unless_it_is_in_use(chips, tmp_path):
    in_use = cached(chips, tmp_path)
    (old,) = folders(tmp_path)
    os.utime(chips[0][0]["mask"].path, ns=(1, 1))
    cached(chips, tmp_path)
    assert len(folders(tmp_path)) == 2
    in_use[0]["image"].read([1])
    del in_use
    gc.collect()
    os.utime(chips[0][0]["mask"].path, ns=(2, 2))
    cached(chips, tmp_path)
    assert old not in folders(tmp_path)


def test_other_bands_are_another_cache(chips, tmp_path):
    dataset, processor = chips
    other = PrithviImageProcessor(**{**processor.to_dict(), "bands": [*BANDS[:4], "SWIR_2", "SWIR_1"]})
    first, second = cached(chips, tmp_path), cached((dataset, other), tmp_path)
    assert len(folders(tmp_path)) == 2
    assert first[0]["image"]._stored.stored == (1, 2, 3, 8, 11, 12)
    assert second[0]["image"]._stored.stored == (1, 2, 3, 8, 12, 11)


def test_a_side_file_counts(chips, tmp_path):
    cached(chips, tmp_path)
    Path(chips[0][0]["image"].path + ".aux.xml").write_text("<PAMDataset/>")
    cached(chips, tmp_path)
    assert len(folders(tmp_path)) <= 2


def test_it_says_how_large_it_will_be(chips, tmp_path, capsys):
    dataset, processor = chips
    cache = cache_chips(dataset, processor, "train", tmp_path / "cache").cache
    pixels = 2 * 48 * 48 + 2 * 56 * 48
    assert pixels * 14 <= cache.num_bytes < pixels * 14 + 8 * 64
    assert f"Decoding 4 chips of train, {cache.num_bytes / 1e9:.2f} GB" in capsys.readouterr().out


def test_clearing(chips, tmp_path):
    dataset = cached(chips, tmp_path)
    assert clear_decoded_cache(tmp_path / "cache") == 0  # it is in use
    del dataset
    gc.collect()
    assert clear_decoded_cache(tmp_path / "cache") > 0
    assert folders(tmp_path) == []
    assert clear_decoded_cache(tmp_path / "nothing") == 0


def build_elsewhere(dataset, processor, cache_dir, start, queue):
    start.wait()
    build._decode = slow_decode
    cache = cache_chips(dataset, processor, "train", cache_dir, show_progress=False)
    queue.put((os.getpid(), (cache.cache.folder / "index.json").stat().st_ino, cache[2]["image"].read([3]).sum()))


decode = build._decode


def slow_decode(*arguments):
    with open(os.environ["DECODED"], "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.05)
    return decode(*arguments)


def test_of_two_processes_one_decodes(chips, tmp_path, monkeypatch):
    monkeypatch.setenv("DECODED", str(tmp_path / "decoded"))
    context = multiprocessing.get_context("fork")
    start, queue = context.Event(), context.Queue()
    arguments = (*chips, tmp_path / "cache", start, queue)
    processes = [context.Process(target=build_elsewhere, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(10)
    assert len(set((tmp_path / "decoded").read_text().split())) == 1
    assert results[0][1:] == results[1][1:]
    assert len(folders(tmp_path)) == 1


def test_killed_in_the_middle_and_made_again(chips, tmp_path, monkeypatch):
    monkeypatch.setenv("DECODED", str(tmp_path / "decoded"))
    context = multiprocessing.get_context("fork")
    start, queue = context.Event(), context.Queue()
    start.set()
    process = context.Process(target=build_elsewhere, args=(*chips, tmp_path / "cache", start, queue))
    process.start()
    while not (tmp_path / "decoded").exists():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    (leftover,) = folders(tmp_path)
    assert leftover.endswith(".tmp")
    other = plain_chips(tmp_path / "other", count=1)
    cached(other, tmp_path, "other")  # a cache of other chips removes what the dead process left
    assert all(not name.endswith(".tmp") for name in folders(tmp_path))
    row = cached(chips, tmp_path)[0]
    np.testing.assert_array_equal(row["image"].read([1]), chips[0][0]["image"].read([1]))


# ----------------------------------------------------------------- refused, with nothing left


@pytest.mark.parametrize("part", ["image", "mask"])
def test_unreadable_chips_are_named(chips, tmp_path, part):
    names = [Path(chips[0][index][part].path) for index in (0, 2)]
    for name in names:
        content = bytearray(name.read_bytes())
        content[400:-200] = bytes(len(content) - 600)  # the header stays: only decoding fails
        name.write_bytes(content)
    with pytest.raises(ValueError, match="2 of") as error:
        cached(chips, tmp_path)
    assert all(str(name) in str(error.value) for name in names)
    assert folders(tmp_path) == []


def test_truncated_and_missing_files_are_named(chips, tmp_path):
    cut, missing = (Path(chips[0][index]["image"].path) for index in (0, 1))
    cut_off(cut, 0.5)
    missing.unlink()
    with pytest.raises(ValueError, match="Split train: 2 of 4 chips cannot be used") as error:
        cached(chips, tmp_path)
    assert str(cut) in str(error.value)
    assert str(missing) in str(error.value)
    assert folders(tmp_path) == []


def test_a_file_of_other_bands_is_named(chips, tmp_path):
    dataset, processor = chips
    write_raster(Path(dataset[3]["image"].path), reflectance(5, 48, 1), descriptions=SEN1FLOODS11_CODES[:5])
    with pytest.raises(ValueError, match=r"3\.tif"):
        cached((dataset, processor), tmp_path)


def test_bytes_in_the_table_are_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", reflectance(6, 32), descriptions=BANDS)
    dataset = as_dataset([path.read_bytes()], [str(write_mask(tmp_path / "m.tif", 32))])
    with pytest.raises(ValueError, match="decoded_cache: false"):
        cached((dataset, make_processor()), tmp_path)


def test_too_little_space_is_known_before_the_work(chips, tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    monkeypatch.setattr(build, "_decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(build.ChipCacheError, match=r"bytes needed, 1,000 free.*decoded_cache_dir"):
        cached(chips, tmp_path)
    assert folders(tmp_path) == []


def test_a_disk_that_fills_up(chips, tmp_path):
    """A limit on the size of files stands for a full disk; it is the process's own, so a process of its own has it."""

    def build_with_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            cached(chips, tmp_path)
        except build.ChipCacheError as error:
            os._exit(0 if "File too large" in str(error) else 3)
        os._exit(4)

    process = multiprocessing.get_context("fork").Process(target=build_with_limit)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert folders(tmp_path) == []


def test_a_place_that_cannot_be_written(chips, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        cache_chips(*chips, "train", tmp_path / "file", show_progress=False)


def test_an_empty_split(tmp_path):
    with pytest.raises(ValueError, match="at least one chip"):
        cached((as_dataset([], []), make_processor()), tmp_path)


# ----------------------------------------------------------------- the dataset and its workers


def test_rows_like_those_of_datasets(chips, tmp_path):
    dataset = cached(chips, tmp_path)
    assert isinstance(dataset, CachedChips)
    assert (len(dataset), dataset.column_names) == (4, ["image", "mask", "id", "date"])
    assert [row["id"] for row in dataset] == ["chip0", "chip1", "chip2", "chip3"]
    assert dataset[-1]["id"] == "chip3"
    assert "4 chips" in repr(dataset)
    with pytest.raises(IndexError):
        dataset[4]
    transformed = dataset.with_transform(lambda columns: {"names": columns["id"]})
    assert transformed[2] == {"names": "chip2"}
    assert transformed.with_format(None)[2]["id"] == "chip2"
    with pytest.raises(ValueError, match="with_transform"):
        dataset.with_format("torch")


def test_selected_rows_are_cached_in_their_order(chips, tmp_path):
    dataset, processor = chips
    rows = cached((dataset.select([2, 0]), processor), tmp_path)
    assert [row["id"] for row in rows] == ["chip2", "chip0"]
    np.testing.assert_array_equal(rows[0]["image"].read([1]), dataset[2]["image"].read([1]))


def open_rasters():
    """Files with the names of rasters that this process holds open."""
    targets = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # another thread has closed it meanwhile
            targets.append(os.readlink(f"/proc/self/fd/{number}"))
    return [target for target in targets if target.endswith(".tif")]


class Watched(torch.utils.data.Dataset):
    """Rows of a dataset, and how many rasters the worker holds open."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        before = len(open_rasters())
        row = self.dataset[index]
        return {**row, "open": torch.tensor(before + len(open_rasters()))}


@pytest.mark.parametrize(
    ("method", "with_cache"),
    [("fork", True), ("fork", False), ("forkserver", True), pytest.param("spawn", True, marks=pytest.mark.slow)],
)
def test_workers_of_every_kind(chips, tmp_path, method, with_cache):
    """Eight workers read the same chips as this process, and none inherits an open raster."""
    dataset = cached(chips, tmp_path) if with_cache else chips[0]
    dataset[0]["image"].read()  # this process has read before the workers are made
    whole = dataset.with_transform(SegmentationTransform(chips[1]))
    workers = 8 if method == "fork" else 2
    loader = DataLoader(Watched(whole), batch_size=None, num_workers=workers, multiprocessing_context=method)
    for row, expected in zip(loader, whole, strict=True):
        assert row.pop("open") == 0
        assert_same(row, expected)


def test_batches_of_workers_are_kept_in_any_number(chips, tmp_path):
    dataset, processor = chips
    transform = SegmentationTransform(processor, 16, "hflip", train=True)
    rows = [index % 4 for index in range(60)]

    def draw(source):
        torch.manual_seed(1)
        chips = Subset(source.with_transform(transform), rows)
        return list(DataLoader(chips, batch_size=2, num_workers=2, collate_fn=collate_chips))

    kept, again = draw(cached(chips, tmp_path)), draw(dataset)
    assert len(kept) == 30
    for batch, other in zip(kept, again, strict=True):
        assert_same(batch, other)


# ----------------------------------------------------------------- damaged after it was made


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("part", ["image", "mask", "nodata mask"])
def test_changed_pixels_are_found_by_their_checksum(tmp_path, part, workers):
    dataset, processor = masked_chips(tmp_path) if part == "nodata mask" else plain_chips(tmp_path)
    row = cached((dataset, processor), tmp_path)[1]
    stored = row["mask" if part == "mask" else "image"]._stored
    pixels = next(tmp_path.rglob("pixels.bin"))
    content = bytearray(pixels.read_bytes())
    content[(stored.nodata_mask if part == "nodata mask" else stored.pixels) + 100] ^= 1
    pixels.write_bytes(content)
    crops = cached((dataset, processor), tmp_path).with_transform(SegmentationTransform(processor, 16, train=True))
    batches = iter(DataLoader(crops, batch_size=1, num_workers=workers, collate_fn=collate_chips))
    next(batches)
    with pytest.raises(ChipCacheError, match=f"{stored.name} as they were written, found others.*Remove this folder"):
        next(batches)


@pytest.mark.parametrize("length", [0, 5000, None])
def test_a_cache_cut_off_is_a_message_before_and_while_it_is_read(chips, tmp_path, length):
    dataset, folder = cached(chips, tmp_path), next(tmp_path.rglob("pixels.bin")).parent
    mask = dataset[3]["mask"]
    os.truncate(folder / "pixels.bin", dataset.cache.num_bytes - 1 if length is None else length)
    for read in (mask.read, lambda: dataset[0], lambda: cached(chips, tmp_path)):
        with pytest.raises(ChipCacheError, match=r"bytes of decoded chips, found [\d,]+: .* Remove this folder"):
            read()
    (folder / "index.json").write_text('{"bytes": 9, "rast')
    with pytest.raises(ChipCacheError, match=r"index.json damaged"):
        cached(chips, tmp_path)


def test_pixels_are_compared_once_for_all_processes(chips, tmp_path, monkeypatch):
    crops = cached(chips, tmp_path).with_transform(SegmentationTransform(chips[1], 16, train=True))
    list(DataLoader(crops, batch_size=2, num_workers=2, multiprocessing_context="fork", collate_fn=collate_chips))
    monkeypatch.setattr(build.zlib, "crc32", lambda *_: pytest.fail("compared again"))
    assert len(list(DataLoader(crops, batch_size=2, collate_fn=collate_chips))) == 2
