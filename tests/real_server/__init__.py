"""A real Pie server on this machine's processor, and the tests that run against it."""
