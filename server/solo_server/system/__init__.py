"""The system that the server runs on: its processor, its variables, its addresses."""
