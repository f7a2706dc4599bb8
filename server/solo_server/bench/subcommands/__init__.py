"""The subcommands of `solo bench`: each module has `add_arguments` and `run`."""
