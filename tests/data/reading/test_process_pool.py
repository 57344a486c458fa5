import os
import time

import pytest

from fss.data.reading import process_pool as pools
from fss.data.reading.process_pool import processes, spread
from fss.errors import DataError


def slow_square(x):
    time.sleep(0.02 * (3 - x % 4))
    return x * x, os.getpid()


def die(_):
    os._exit(7)


def refuse(x):
    raise DataError(f"no {x}")


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_jobs(workers):
    found = list(spread(slow_square, range(12), workers))
    assert [value for value, _ in found] == [x * x for x in range(12)]
    others = {pid for _, pid in found}
    assert (others == {os.getpid()}) == (workers == 1)
    assert os.getpid() not in others or workers == 1


def test_jobs_are_read_only_a_little_ahead(monkeypatch):
    monkeypatch.setattr(pools, "_WAITING", 2)
    taken = []

    def jobs():
        for x in range(50):
            taken.append(x)
            yield x

    found = spread(slow_square, jobs(), 2)
    next(found)
    assert len(taken) <= 5
    found.close()


def test_errors_arrive():
    with pytest.raises(DataError, match="no 0"):
        list(spread(refuse, range(3), 2))
    with pytest.raises(DataError, match=r"ended from outside.*--workers 1"):
        list(spread(die, range(3), 2))


def test_number_of_processes():
    assert processes(4, 100) == 4
    assert processes(4, 2) == 2
    assert processes(4, 0) == processes(None, pools.FEW - 1) == 1
    assert processes(None, pools.FEW) >= 1
