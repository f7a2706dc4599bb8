"""A load generator that needs little processor time: asyncio, httptools, keep-alive connections, prepared requests."""
