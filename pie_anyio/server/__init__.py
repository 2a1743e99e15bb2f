"""An embedded Pie server, which really runs programs: for development and tests, without a GPU.

::

    async with pie_anyio.server.serve() as server:
        print(server.url)

Or ``python -m pie_anyio.server``. It speaks the dialects of servers 0.2 to 0.5, one at a time, has
no model, and is no sandbox: programs run in its process. Running them takes the extra
``pie-anyio[server]``, which is loaded by the first server that is entered.

Where it is not like the real server, on purpose: a program that does not compile is answered with
the compiler's words (there, the connection drops without any); pages of web sites are turned away
while authentication is off. Like it (0.2): a query about an unknown subject is never
answered.
"""

from pie_anyio.server.listener import SERVER_LIMITS, Server, serve
from pie_anyio.server.runner_limits import RunnerLimits

__all__ = ["SERVER_LIMITS", "RunnerLimits", "Server", "serve"]
