"""The commands of the server: serve, build-engine, and segment without a server."""
