"""From category scores and mask features to instances; `cpu` is the oracle that every other form is compared with."""
