"""How the scripts time (imported by them): the seconds of every run, of which `cargo xtask bench` takes the median."""

import time


def seconds(work, rounds=5, warm_up=1):
    """Wall seconds of each of `rounds` calls, after some that do not count."""
    times = []
    for _ in range(warm_up + rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times[warm_up:]
