"""The behaviours of all families beside a server that people run."""

from tests.families.behaviours import *  # noqa: F403 - each is a test here
