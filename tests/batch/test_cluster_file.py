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


@pytest.mark.parametrize("name", ["cluster.yaml", "docs/operations.md", "jobs/rayjob.yaml"])
def test_nodes_install_this_checkout_with_the_tested_versions_and_nothing_by_name(name: str) -> None:
    """Whoever registers the name in an index would own every cluster."""
    installs = [line for line in (ROOT / name).read_text().splitlines() if "pip install -" in line]
    assert installs
    ours = re.compile(r'-c \S*dist/requirements\.lock "\$\(ls \S*dist/cogbatch-\*\.whl\)\[s3\]"')
    for line in installs:
        assert ours.search(line), line


@pytest.mark.parametrize("load", [in_the_cloud, on_premise])
def test_what_the_nodes_install_is_where_the_command_looks_for_it(load: Any) -> None:
    config = load()
    (install,) = [command for command in config["setup_commands"] if "pip install" in command]
    (place,) = [there for there, here in config["file_mounts"].items() if here == "dist"]
    assert f"{place}/requirements.lock" in install
    assert f"{place}/cogbatch-*.whl" in install


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
