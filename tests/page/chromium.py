"""Debian's chromium."""

PATH = "/usr/bin/chromium"
CAMERA = ("--use-fake-device-for-media-stream=fps=30", "--use-fake-ui-for-media-stream", "--renderer-process-limit=4")
"""Arguments of a browser with a camera that is made up, and allowed."""
