"""A load generator that is light on the processor: asyncio, httptools, connections kept alive, requests built beforehand."""
