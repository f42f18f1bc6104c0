"""The pool of threads behind the per-image stages."""

import threading
import time

import pytest
import torch

from c2am.stages import parallel


def test_results_keep_the_order_of_the_ids():
    def work(image_id: str) -> str:
        time.sleep(0.02 if image_id == "0" else 0.0)
        return image_id * 2

    ids = [str(i) for i in range(20)]
    assert list(parallel.map_images(work, ids, "test")) == [i * 2 for i in ids]


def test_an_error_of_an_image_is_raised():
    def work(image_id: str) -> str:
        if image_id == "bad":
            raise ValueError("bad image")
        return image_id

    with pytest.raises(ValueError, match="bad image"):
        list(parallel.map_images(work, ["a", "bad", *"bcdefghij"], "test"))


def test_an_error_at_the_end_of_the_block_is_raised():
    def fail() -> None:
        raise ValueError("late")

    with pytest.raises(ValueError, match="late"), parallel.Workers() as workers:
        workers.submit(fail)


def test_an_error_does_not_wait_for_the_queue_to_fill():
    with parallel.Workers() as workers:
        hold = threading.Event()
        workers.submit(lambda: int("no number") if hold.wait(5) else None)
        (failed,) = workers._queue
        hold.set()
        while not failed.done():
            time.sleep(0.001)
        with pytest.raises(ValueError, match="no number"):
            workers.submit(int, "1")


def test_few_images_are_queued_at_once():
    started, hold = [], threading.Event()

    def work(image_id: str) -> None:
        started.append(image_id)
        hold.wait(5)

    taken = []

    class Ids(list):
        def __iter__(self):
            for image_id in super().__iter__():
                taken.append(image_id)
                yield image_id

    runner = threading.Thread(
        target=lambda: list(parallel.map_images(work, Ids(map(str, range(100))), "test"))
    )
    runner.start()
    time.sleep(0.3)
    most = len(taken)
    hold.set()
    runner.join()
    assert len(started) == 100
    assert most <= parallel.worker_count() + parallel._WAITING + parallel._QUEUED + 1


def test_jobs_use_one_torch_thread_and_leave_the_caller_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        counts = list(parallel.map_images(lambda _: torch.get_num_threads(), ["a", "b"], "test"))
        assert counts == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_ranks_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(8)))
    assert parallel.worker_count() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert parallel.worker_count() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert parallel.worker_count() == 1
