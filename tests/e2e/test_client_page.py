"""The examples of docs/client.md are whole programs, and do what the page says."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from mesh_client.loopback import Mesh
from tests.meta.check import ROOT

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs/client.md").read_text()
PRINTED = (
    r"""[0-9a-f-]{36}\nb'\{"order":7\}' \{'order': 7\}\n""",
    r"b'hello'\n[012]\n[012]\n[012]\n",
    r"a a\nb b\nc c\n",
    r"\{'seconds': 0\} done\n\{'seconds': 'soon'\} failed: job .* is failed: .*\n",
    r"the job ended: failed sleep\.\w+ .*\n",
)
"""What the examples print, in their order."""


async def test_examples_of_the_page_run(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    async with Mesh(tmp_path / "data") as mesh:
        await mesh.start_broker()
        await mesh.start_agent("a1", slots=4)
        for example, printed in zip(examples, PRINTED, strict=True):
            program = example.replace("127.0.0.1:7402", mesh.addresses.api)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, example
            assert re.fullmatch(printed, out.decode()), f"{example}\n{out.decode()}"
        await mesh.stop()
