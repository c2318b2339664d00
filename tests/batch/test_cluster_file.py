"""cluster.yaml is what Ray's launcher accepts, as far as that can be known offline."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_launcher_accepts_cluster_yaml() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((Path(__file__).parents[2] / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
