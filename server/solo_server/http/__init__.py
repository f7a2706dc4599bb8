"""What is HTTP and nothing else: reading requests off a connection, forms, and which answer a caller accepts."""
