"""Admission, batching and execution of images, and the models in service."""
