"""Sliding-window prediction against the original, and its windows."""

import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prithvi_hf import PrithviConfig
from prithvi_hf.models.prithvi.sliding_window_prithvi import (
    check_window_options,
    evaluation_mode,
    sliding_window_logits,
    tile_threads,
    window_and_stride,
    window_starts,
)
from tests.golden import assert_matches, read_golden
from tests.models.test_modeling_prithvi import golden_config, golden_segmentor, small_model


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_logits_are_those_of_the_original(golden_dir, batch_size):
    golden = read_golden(golden_dir, "v1_slide")
    config = golden_config(read_golden(golden_dir, "v1_segmentor_burn"))  # the same architecture, not written in it
    model = golden_segmentor(golden, config).eval()
    crop, stride = golden.config["crop"], golden.config["stride"]
    logits = sliding_window_logits(model, golden["in_.x"], (crop, crop), (stride, stride), batch_size)
    assert_matches(logits, golden["out.logits"])
    assert_matches(logits.softmax(dim=1), golden["out.probs"])
    assert torch.equal(logits.argmax(dim=1), golden["out.pred"])


@given(size=st.integers(1, 300), window=st.integers(1, 120), share=st.floats(0.01, 1))
def test_windows_cover_every_pixel_and_stay_inside(size, window, share):
    stride = max(1, round(window * share))
    starts = window_starts(size, window, stride)
    covered = {pixel for start in starts for pixel in range(start, min(start + window, size))}
    assert covered == set(range(size))
    assert all(0 <= start <= max(size - window, 0) for start in starts)
    assert starts == sorted(set(starts)), "no window twice"


def test_an_image_smaller_than_the_window_is_one_window():
    model = small_model()
    pixels = torch.randn(2, 6, 1, 20, 50)
    logits = sliding_window_logits(model, pixels, (32, 64), (16, 32))
    assert_matches(logits, model(pixels).logits)


def test_images_of_a_batch_do_not_touch_each_other():
    model = small_model()
    pixels = torch.randn(3, 6, 1, 40, 56)
    together = sliding_window_logits(model, pixels, (32, 32), (16, 16), batch_size=5)
    for index in range(3):
        alone = sliding_window_logits(model, pixels[index : index + 1], (32, 32), (16, 16), batch_size=5)
        assert_matches(together[index : index + 1], alone)


class Recorder:
    """A forward pass that notes how many tiles came, in which thread, and how many threads torch had there."""

    def __init__(self, model, monkeypatch):
        self.calls, self.forward = [], model.forward
        monkeypatch.setattr(model, "forward", self)

    def __call__(self, pixel_values):
        self.calls.append((len(pixel_values), threading.current_thread().name, torch.get_num_threads()))
        return self.forward(pixel_values)

    def column(self, index):
        return [call[index] for call in self.calls]


@pytest.mark.parametrize(("threads", "sizes"), [(1, [4, 4, 1]), (2, [2, 2, 2, 2, 1])])
def test_tiles_go_in_batches_and_on_several_cores_in_parts_of_them(threads, sizes, monkeypatch, set_threads):
    model = small_model()
    image = torch.randn(1, 6, 1, 64, 64)
    set_threads(1)
    expected = sliding_window_logits(model, image, (32, 32), (16, 16), 4)
    set_threads(threads)
    recorder = Recorder(model, monkeypatch)
    logits = sliding_window_logits(model, image, (32, 32), (16, 16), 4)
    assert recorder.column(0) == sizes
    assert set(recorder.column(2)) == {1}
    assert torch.get_num_threads() == threads
    assert_matches(logits, expected)


@pytest.mark.parametrize(("batch_size", "each"), [(8, 1), (3, 2), (2, 4), (1, 8)])
def test_cores_that_have_no_tile_of_their_own_share_one(batch_size, each, monkeypatch, set_threads):
    model = small_model()
    recorder = Recorder(model, monkeypatch)
    set_threads(8)
    with tile_threads(model, batch_size) as compute_parts, torch.no_grad():
        tiles = torch.randn(batch_size, 6, 1, 32, 32)
        logits = compute_parts(lambda part: model(pixel_values=tiles[part]).logits, batch_size)
    assert recorder.calls[0][2] == each
    assert logits.shape == (batch_size, 2, 32, 32)


def test_parts_are_joined_in_order_and_compute_as_their_caller_does(set_threads):
    set_threads(3)
    with torch.autocast("cpu", torch.bfloat16), tile_threads(small_model(), 7) as compute_parts:

        def predict(part):
            time.sleep(0.02 if part.start == 0 else 0)
            assert not torch.is_grad_enabled()
            return (torch.arange(7.0)[part, None] @ torch.ones(1, 1)).squeeze(1)

        found = compute_parts(predict, 7)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == list(range(7))


def test_the_threads_of_torch_are_put_back_after_an_error(set_threads):
    set_threads(2)
    with tile_threads(small_model(), 4) as compute_parts:
        assert torch.get_num_threads() == 1
        with pytest.raises(ZeroDivisionError):
            compute_parts(lambda part: 1 / 0, 4)
    with pytest.raises(KeyError), tile_threads(small_model(), 4):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_threads_that_begin_meanwhile_have_as_many_threads_of_torch_as_before(set_threads):
    set_threads(3)
    counts, all_there = [], threading.Barrier(3)

    def begin_together(part):
        all_there.wait(20)
        return torch.zeros(1)

    def begin_another(part):
        other = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert torch.get_num_threads() == 1
        return torch.zeros(1)

    with tile_threads(small_model(), 4) as compute_parts:
        compute_parts(begin_together, 3)  # every thread sets its own number when it begins
        compute_parts(begin_another, 3)
    assert set(counts) == {3}


def test_a_compiled_model_and_one_of_another_runtime_get_whole_batches(set_threads):
    set_threads(2)
    compiled = small_model()
    compiled.compile(backend="eager")
    for model in (compiled, torch.nn.Identity()):
        with tile_threads(model, 4) as compute_parts:
            assert compute_parts(lambda part: torch.arange(9)[part], 4).tolist() == [0, 1, 2, 3]
            assert torch.get_num_threads() == 2


def test_the_mode_of_every_module_is_restored_after_an_error():
    model = small_model().train()
    model.decode_head.eval()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    with pytest.raises(RuntimeError), evaluation_mode(model):
        raise RuntimeError
    assert model.training
    assert not model.decode_head.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((None, 1.0), "0 <= overlap < 1"),
        ((0, 0.5), "whole and positive"),
        (((32, 32, 32), 0.5), "whole and positive"),
        ((32.0, 0.5), "whole and positive"),
        ((32, 0.5, 0), "batch_size"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_window_options(*options)


def test_default_window_is_the_image_size_with_half_overlap():
    config = PrithviConfig(image_size=[64, 96], num_frames=1)
    assert window_and_stride(config) == ((64, 96), (32, 48))
    assert window_and_stride(config, 224, 0.75) == ((224, 224), (56, 56))
    assert window_and_stride(PrithviConfig(input_upsampling=1.75)) == ((128, 128), (64, 64))  # of the image


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 2])
def test_an_impossible_overlap_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap"):
        window_and_stride(PrithviConfig(), overlap=overlap)


def test_strides_that_leave_pixels_out_are_refused():
    with pytest.raises(ValueError, match="strides from 1 to the window"):
        sliding_window_logits(small_model(), torch.zeros(1, 6, 1, 64, 64), (32, 32), (33, 16))
