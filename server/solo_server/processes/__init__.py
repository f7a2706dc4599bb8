"""Several server processes on one machine, and what restarts them."""
