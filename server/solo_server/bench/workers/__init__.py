"""The measured processes, which load a network; they speak `solo_server.bench.protocol` with the parent."""
