"""The embedded server, met by software that nobody here wrote."""
