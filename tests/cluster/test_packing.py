"""Large arrays travel once, and no value changes on the way."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from taskdisc.cluster import packing
from taskdisc.cluster.packing import LARGE, Arrays, content_name, packed, unpacked


def test_large_arrays_alone_are_left_out() -> None:
    large, small = np.arange(LARGE), np.arange(3)
    objects = np.array([None] * LARGE)
    value = {"a": large, "again": [large], "small": small, "f": lambda x: x + 1, "o": objects}
    content, arrays = packed(value)
    assert len(arrays) == 1 and arrays[0] is large
    read = unpacked(content, tuple(arrays))
    assert read["a"] is large and read["again"][0] is large
    assert np.array_equal(read["small"], small) and read["f"](1) == 2
    assert len(read["o"]) == LARGE


def test_a_masked_array_keeps_its_mask() -> None:
    masked = np.ma.masked_less(np.arange(LARGE), 3)
    content, arrays = packed(masked)
    assert np.ma.count_masked(unpacked(content, tuple(arrays))) == 3


def test_equal_arrays_have_one_name_and_others_have_others() -> None:
    numbers = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert content_name(numbers) == content_name(numbers.copy())
    others = [
        numbers + 1,
        numbers.reshape(4, 3),
        numbers.astype(np.int64),
        numbers.view(np.float32),
        # Sums of it have another order, so that they may be rounded otherwise.
        np.asfortranarray(numbers),
    ]
    assert len({content_name(array) for array in (numbers, *others)}) == 6


class Submitted:
    """Stands for a future of Dask."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class FakeScheduler:
    """Takes arrays without a cluster."""

    @contextmanager
    def reached(self) -> Iterator[Any]:
        yield self

    def submit(self, function: Any, array: np.ndarray, key: str) -> Submitted:
        return Submitted(function(array))


@pytest.fixture
def arrays() -> Arrays:
    return Arrays(FakeScheduler())  # type: ignore[arg-type]


def test_an_array_that_was_changed_between_two_calls_is_sent_again(arrays: Arrays) -> None:
    array = np.zeros(8)
    for number in (0, 1):
        array[:] = number
        arrays.start_call()
        (future,) = arrays.futures([array])
        assert future.array.tolist() == [number] * 8
    arrays.start_call()
    arrays.futures([array.copy()])
    assert arrays.bytes_sent == 2 * array.nbytes


def test_strided_and_fortran_arrays_arrive_as_they_are(arrays: Arrays) -> None:
    numbers = np.arange(24.0).reshape(4, 6)
    for array in (numbers.T, numbers[:, ::2]):
        (future,) = arrays.futures([array])
        assert np.array_equal(future.array, array)
        assert future.array.flags.f_contiguous == array.flags.f_contiguous


def test_what_no_item_has_any_more_is_forgotten(
    arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros(1000)
    monkeypatch.setattr(packing, "KEPT", images.nbytes // 2)  # less than the images alone
    futures = []
    for number in range(20):
        labels = np.full(100, number)
        futures += [weakref.ref(future) for future in arrays.futures([images, labels])]
    assert arrays.bytes_sent == images.nbytes + 20 * labels.nbytes
    assert futures[0]() is not None and futures[0]() is futures[-2]()
    assert sum(future() is not None for future in futures[1::2]) == 1
