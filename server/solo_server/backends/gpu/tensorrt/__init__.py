"""The engine `tensorrt`. Experimental: it has never run on a GPU.

The rest of the server imports `open` from this folder and nothing else, and only where the engine is chosen or built.
"""
