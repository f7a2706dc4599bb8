"""Which connections stay open when there are too many. `test_connections.py` has the same with real sockets."""

from solo_server.http.connection_limiter import MAX_REFUSED, ConnectionLimiter


class FakeConnection:
    is_evicted = False

    def evict(self) -> None:
        self.is_evicted = True


def test_the_connection_that_waits_longest_without_a_request_is_evicted() -> None:
    limiter = ConnectionLimiter(3)
    connections = [FakeConnection() for _ in range(3)]
    assert all(limiter.add(each) for each in connections)
    limiter.request_started(connections[0])
    limiter.request_started(connections[1])
    limiter.request_ended(connections[1])  # now waits for less time than the third
    assert limiter.add(FakeConnection())
    assert [each.is_evicted for each in connections] == [False, False, True]


def test_where_all_connections_are_in_requests_a_new_one_is_refused_until_one_is_removed() -> None:
    limiter = ConnectionLimiter(1)
    busy = FakeConnection()
    limiter.add(busy)
    limiter.request_started(busy)
    refused = [FakeConnection() for _ in range(MAX_REFUSED + 1)]
    assert not any(limiter.add(each) for each in refused)
    assert limiter.is_refusing_too_many
    limiter.remove(refused[0])
    assert not limiter.is_refusing_too_many
    limiter.remove(busy)
    assert limiter.add(FakeConnection())
    assert not busy.is_evicted
