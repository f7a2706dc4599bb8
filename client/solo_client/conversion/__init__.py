"""What `solo convert` is made of: which files to read, the images beside them, and where results are written."""
