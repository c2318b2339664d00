"""Every command of the pages is run as it is printed, in a world where their names stand for something.

The tutorials have a world of their own (test_docs.py), the Chinese README the commands of the English one.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator

import pytest

from docs.make.pages import PAGES, ROOT, TUTORIALS, blocks, in_sentences
from tests.docs_world import World, small_world

pytestmark = [pytest.mark.slow, pytest.mark.ray]

# What takes an installation, minutes or a cluster: where it is run, and the words there that do it. The sweep
# is run there on 16 scenes and not 300, and a cluster is joined from Python.
ELSEWHERE = {
    "make demo": ("tests/test_readme.py", '["make", "demo"]'),
    "make test": (".ci/run", "make test\n"),
    "make sweep": ("tests/jobs/test_demo_sweep.py", 'cogbatch("sweep", SPEC, *small'),
    "cogbatch run job.yaml --address auto": ("tests/batch/test_cluster.py", '"address": "auto"'),
}
RUN = [page for page in PAGES if page not in TUTORIALS and page != "README.zh.md"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with small_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def seen() -> dict[str, float]:
    """Seconds of the commands that were run, by their text: pages repeat each other."""
    return {}


@pytest.mark.parametrize("page", RUN)
def test_every_command_of_a_page_works(page: str, world: World, seen: dict[str, float]) -> None:
    """Blocks that give a reason are left out; each block finds no training data of another."""
    given = [block for block in blocks(page, "bash") if not block.mark]
    for where, commands in [*((str(one), one.commands) for one in given), (page, in_sentences(page))]:
        shutil.rmtree(world.folder / "data", ignore_errors=True)
        for text in commands:
            command = re.sub(r"\s+#\s.*", "", text).replace(".venv/bin/", "")
            if command in seen or command in ELSEWHERE:
                continue
            began = time.monotonic()
            done = world.run(command)
            seen[command] = time.monotonic() - began
            print(f"{seen[command]:6.1f} s  {command}")
            said = f"{where}: {world.real(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            assert done.returncode == 0, said
            assert "Traceback" not in done.stdout + done.stderr, said


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_is_run_elsewhere_is(command: str) -> None:
    file, words = ELSEWHERE[command]
    assert words in (ROOT / file).read_text()


def test_pages_that_are_run_have_commands() -> None:
    assert sum(len(block.commands) for page in RUN for block in blocks(page, "bash")) > 60
