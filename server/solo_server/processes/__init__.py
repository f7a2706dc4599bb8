"""Several server processes on one machine: a supervisor, and the workers that it starts and restarts."""
