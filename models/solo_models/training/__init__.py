"""Training as in section 3.3 of the paper; needs the extra `train`. See `python -m solo_models.training --help`."""
