"""A contender that loads nothing: it speaks the protocol of `solo_server.bench.protocol`, or breaks it, depending on FAKE_PEER.

FAKE_PEER=refuse | garbage | die:N (after N replies) | touch:FILE (at the third task) | anything else: behaves well
"""

import json
import os
import sys
from pathlib import Path

mode, _, count = os.environ.get("FAKE_PEER", "").partition(":")


def send(message: dict) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


setup = json.loads(sys.stdin.readline())["setup"]
if mode == "refuse":
    send({"refused": "no such weights"})
    sys.exit(2)
if mode == "garbage":
    sys.stdout.write("Hello, I am a library that prints\n")
    sys.exit(0)
send(
    {
        "hello": {
            "name": os.environ.get("FAKE_NAME", "fake"),
            "description": "nothing",
            "versions": {"fake": "1"},
            "details": {"setup": setup},
        }
    }
)
for answers, line in enumerate(sys.stdin):
    task = json.loads(line).get("task")
    if task is None:
        send({"peak_rss_mib": 12.5})
        break
    if mode == "die" and answers == int(count):
        sys.stderr.write("Traceback:\n  deep inside\nMemoryError: no more\n")
        sys.exit(7)
    if mode == "touch" and answers == 2:
        Path(count).touch()
    send({"stages_ms": {"decode": 1.0, "after_towers": 2.0}, "total_ms": 3.0 + task, "instances": 4, "cpu_s": 0.001})
