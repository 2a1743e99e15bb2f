"""The user guide's import name: re-exports of `pie_anyio`, nothing else."""

from pie_anyio import *  # noqa: F403
from pie_anyio import __all__  # noqa: F401
