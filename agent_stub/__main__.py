"""`python -m agent_stub` is `mesh-agent`."""

import sys

from agent_stub.cli import main

if __name__ == "__main__":
    sys.exit(main())
