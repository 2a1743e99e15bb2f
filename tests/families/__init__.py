"""One body per behaviour, for every family of servers and every way to drive a client."""
