"""The parts of the command `solo segment`: which pictures, which model, what is written, how far it is."""
