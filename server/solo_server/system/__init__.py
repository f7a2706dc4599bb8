"""What depends on the system that the server runs on: its variables, its addresses."""
