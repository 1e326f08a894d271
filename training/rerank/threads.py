"""Independent computations on all cores, one thread each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_all_cores(
    function: Callable[[Item], Result], items: Sequence[Item], unit: str, desc: str
) -> list[Result]:
    """The function's results in the order of the items, with a progress bar.

    torch releases the interpreter while it computes. Threads that meet once an item lose less time to other
    programs than those that share every operation.
    """
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(tqdm(pool.map(function, items), total=len(items), unit=unit, desc=desc, leave=False))
