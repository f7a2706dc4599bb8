"""Processes that load a network and are measured; the parent talks to them in the lines of `solo_server.bench.protocol`."""
