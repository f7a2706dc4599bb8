"""Requests take turns: admission, batching, and the models that are served."""
