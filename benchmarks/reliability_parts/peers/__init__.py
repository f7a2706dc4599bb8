"""Our pipeline inside other servers, which run in an environment that `make peers` creates."""
