"""The pool spreads pieces over its threads, or keeps them in the caller's thread under load."""

import threading

from solo_server.backends.cpu.pool import Pool

THREADS = 2


def test_a_pool_under_load_computes_in_the_callers_thread() -> None:
    pool, meeting = Pool(THREADS), threading.Barrier(THREADS, timeout=30)

    def name_of_thread(_: int) -> str:
        return threading.current_thread().name

    def met(_: int) -> str:
        meeting.wait()  # both pieces run at the same time
        return name_of_thread(0)

    assert {name.rpartition("_")[0] for name in pool.map(met, range(THREADS))} == {"solo-kernel"}
    with pool.running(), pool.running():
        assert set(pool.map(name_of_thread, range(8))) == {threading.current_thread().name}
