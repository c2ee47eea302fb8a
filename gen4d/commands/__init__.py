"""What is printed, a file a command. What takes long to import is imported when a command runs."""
