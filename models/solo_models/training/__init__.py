"""Learning as section 3.3 of the paper describes it; needs the extra `train`. Run `python -m solo_models.training --help`."""
