"""Our pipeline inside other servers: they run with an interpreter of their own, which `make peers` prepares."""
