"""TensorRT networks and engines. Experimental: they have never run on a GPU."""
