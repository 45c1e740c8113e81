# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""An iterator that runs ahead in a thread of its own."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar


T = TypeVar("T")


class BackgroundIterator(Generic[T]):
    """Runs an iterator in a thread, a few items ahead of who takes them.

    An error in the thread is raised where the next item is taken, after the items before it. The thread ends when the
    iterator does, and otherwise on `close`, at the latest once the item that it works on is made; the iterator is
    closed in the thread, so that its `finally` and `with` blocks run.

    Args:
        make: Makes the iterator; called in the thread.
        limit: Items that may wait, at least 1.
        name: Of the thread.

    Example:
        >>> with BackgroundIterator(lambda: iter([1, 2, 3]), limit=2) as items:
        ...     list(items)
        [1, 2, 3]
    """

    def __init__(self, make: Callable[[], Iterator[T]], limit: int, name: str = "reader") -> None:
        self._make, self._limit = make, limit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = self._finished = False
        self._error: BaseException | None = None
        # A daemon: at the end of the process nobody may be left who would close it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._finished)
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the thread and wait for it; what it has made is dropped."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        error = None
        try:
            self._hand_over()
        except BaseException as caught:  # raised again in the thread that takes the items
            error = caught
        with self._changed:
            self._error, self._finished = error, True
            self._changed.notify_all()

    def _hand_over(self) -> None:
        items = self._make()
        try:
            for item in items:
                if not self._put(item):
                    break
        finally:
            if hasattr(items, "close"):
                items.close()

    def _put(self, item: T) -> bool:
        """Wait for room and add an item; False when nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._limit)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed


__all__ = ["BackgroundIterator"]
