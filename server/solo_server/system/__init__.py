"""What the server reads off the system that it runs on."""
