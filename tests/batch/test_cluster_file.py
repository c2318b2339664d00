"""cluster.yaml and its variant for hosts are what Ray's launcher accepts, as far as can be known offline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def in_the_cloud() -> dict[str, Any]:
    """cluster.yaml."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def on_premise() -> dict[str, Any]:
    """The block of docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text()
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "worker_ips" in block]
    config: dict[str, Any] = yaml.safe_load(block)
    return config


@pytest.mark.parametrize("load", [in_the_cloud, on_premise])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_launcher_accepts_it(load: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(load()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_launcher_refuses_a_key_that_it_does_not_know() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config({**on_premise(), "max_worker": 3}))


OURS = re.compile(
    r"pip install (--quiet )?-c (\S+)/requirements\.lock"
    r' "\$\(ls (-t )?(\S+)/cogbatch-\*\.whl( \| head -n1)?\)\[s3\]"$'
)
BOTO3 = re.compile(r"pip install --quiet -c \S+/requirements\.lock boto3$")  # what Ray's autoscaler imports


@pytest.mark.parametrize("load", [in_the_cloud, on_premise])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nodes_install_this_checkout_with_the_tested_versions_and_nothing_else_by_name(load: Any) -> None:
    """Whoever registers our name in an index would own every cluster. Defaults of the launcher count."""
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(load())
    (place,) = [there for there, here in load()["file_mounts"].items() if here == "dist"]
    for kind in ("head_setup_commands", "worker_setup_commands"):
        installs = [command for command in config[kind] if "pip install" in command]
        (ours,) = [found for command in installs if (found := OURS.search(command))]
        assert ours[2] == ours[4] == place
        assert all(OURS.search(command) or BOTO3.search(command) for command in installs), installs


@pytest.mark.parametrize(("name", "count"), [("jobs/rayjob.yaml", 1), ("docs/operations.md", 2)])
def test_what_is_written_for_people_to_install_is_this_checkout_too(name: str, count: int) -> None:
    text = (ROOT / name).read_text()
    blocks = re.findall(r"```\w+\n(.*?)```", text, re.DOTALL) if name.endswith(".md") else [text]
    installs = [
        line for block in blocks for line in block.splitlines() if re.search(r"\bpip3? install", line)
    ]
    assert len(installs) == count
    assert all(OURS.search(line.partition("   #")[0].rstrip()) for line in installs), installs


@pytest.mark.parametrize("load", [in_the_cloud, on_premise])
def test_every_node_asks_for_the_token_and_reports_nothing(load: Any) -> None:
    config = load()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ray start" in command for command in starts)


def test_workers_come_and_go_between_none_and_the_most() -> None:
    config = in_the_cloud()
    gpu, head = config["available_node_types"]["gpu"], config["available_node_types"]["head"]
    assert (gpu["min_workers"], gpu["max_workers"], config["max_workers"]) == (0, 8, 8)
    assert (head["resources"]["GPU"], head["max_workers"]) == (0, 0)
