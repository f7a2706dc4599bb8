"""The parts of the command `solo segment`: which images, which model, what is written, how far it is."""
