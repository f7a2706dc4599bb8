"""Callers that send one image after another, while something happens to the cluster."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from support.images import encoded, smooth_image

PNG = encoded(smooth_image(90, 120))


@dataclass
class Load:
    """What callers got: versions of answers, and every other answer as (status, code, has Retry-After)."""

    url: str
    versions: Counter[str] = field(default_factory=Counter)
    others: Counter[tuple[int, str, bool]] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def answered(self) -> int:
        return sum(self.versions.values())

    def call(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.is_over.is_set():
                try:
                    self.note(client.post("/segment", content=PNG))
                except httpx.HTTPError as problem:
                    self.lost.append(repr(problem))

    def note(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            self.versions[response.json()["model"]["version"]] += 1
            return
        is_problem = response.headers["content-type"] == "application/problem+json"
        code = response.json()["code"] if is_problem else response.text[:80]
        self.others[response.status_code, code, "retry-after" in response.headers] += 1
        time.sleep(0.05)

    def until_answered(self, more: int, seconds: float = 60.0) -> None:
        """Wait for so many answers from now on."""
        target, end = self.answered + more, time.monotonic() + seconds
        while self.answered < target:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.answered} of {target} answers; others: {self.others}; lost: {self.lost[:3]}")
            time.sleep(0.05)


@contextmanager
def calling(url: str, callers: int) -> Iterator[Load]:
    load = Load(url)
    threads = [threading.Thread(target=load.call, daemon=True) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        load.until_answered(callers)
        yield load
    finally:
        load.is_over.set()
        for thread in threads:
            thread.join(60)
