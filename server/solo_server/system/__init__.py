"""The machine that the server runs on: processor, cores, memory, environment variables, addresses."""
