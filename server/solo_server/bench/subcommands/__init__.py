"""The verbs of `solo bench`: each has `add_arguments` and `run`."""
