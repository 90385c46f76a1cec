# SPDX-License-Identifier: MIT
"""Python's multiprocessing as a peer: prints the nanoseconds, or bytes, of one.

usage: python.py <what> <n> <more>

Starting and ending the workers does not count, and they are there when the
clock starts. Exit status 127: it cannot be measured here.
"""
import os
import sys
import time

try:
    import multiprocessing
    import multiprocessing.synchronize
except ImportError:  # left out of small installations
    sys.exit(127)

WORKERS = 2


def add_one(x):
    return x + 1


def must(ok, what):
    if not ok:
        sys.exit(f"python.py: failed: {what}")


def must_add_up(replies, n):
    must(sum(replies) == n * (n + 1) // 2, "the sum of the replies")


def clock(run, n):
    """Nanoseconds for each of the n things that run() does."""
    begin = time.perf_counter_ns()
    replies = run()
    ns = time.perf_counter_ns() - begin
    return ns / n, replies


def map_once(pool, n, chunk):
    items = list(range(n))
    ns, replies = clock(lambda: pool.map(add_one, items, chunk or None), n)
    must_add_up(replies, n)
    return ns


def map_calls(pool, n, count):
    items = list(range(count))

    def run():
        for _ in range(n):
            replies = pool.map(add_one, items)
        return replies

    ns, replies = clock(run, n)
    must_add_up(replies, count)
    return ns


def apply_async(pool, n, _):
    def run():
        results = [pool.apply_async(add_one, (i,)) for i in range(n)]
        return [result.get() for result in results]

    ns, replies = clock(run, n)
    must_add_up(replies, n)
    return ns


def apply(pool, n, _):
    def run():
        return [pool.apply(add_one, (i,)) for i in range(n)]

    ns, replies = clock(run, n)
    must_add_up(replies, n)
    return ns


go = None


def keep(event):
    global go
    go = event


def hold():
    go.wait()


def resident():
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def pending(n):
    """Bytes of each of n tasks that wait, in the process that made them."""
    event = multiprocessing.Event()
    with multiprocessing.Pool(WORKERS, keep, (event,)) as pool:
        for _ in range(WORKERS):
            pool.apply_async(hold)
        before = resident()
        results = [pool.apply_async(add_one, (i,)) for i in range(n)]
        grown = resident() - before
        must(not any(result.ready() for result in results), "all wait")
    return grown / n


def transfer(queue, sends, n, there):
    there.wait()
    for _ in range(n):
        if sends:
            queue.put(bytes(64))
        else:
            must(len(queue.get()) == 64, "a message")


def flow(n, pairs):
    """Nanoseconds for each of n messages, from when all sides are there.

    They go where the system puts them: each has two threads.
    """
    queue = multiprocessing.Queue()
    there = multiprocessing.Barrier(2 * pairs + 1)
    sides = [
        multiprocessing.Process(
            target=transfer, args=(queue, i % 2 == 0, n // pairs, there)
        )
        for i in range(2 * pairs)
    ]
    for side in sides:
        side.start()
    there.wait()
    begin = time.perf_counter_ns()
    for side in sides:
        side.join()
        must(side.exitcode == 0, "a child")
    return (time.perf_counter_ns() - begin) / (n // pairs * pairs)


def main():
    what, n, more = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if what == "pending":
        print(pending(n))
        return
    if what == "queue":
        print(flow(n, more))
        return
    measure = {
        "map": map_once,
        "map_calls": map_calls,
        "apply_async": apply_async,
        "apply": apply,
    }[what]
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(add_one, range(1000), 1)
        print(measure(pool, n, more))


if __name__ == "__main__":
    main()
