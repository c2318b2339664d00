"""What pages of the documentation take for granted: a checkpoint, a job, a head, a bucket, all of them small.

A copy of the repository in which the names that pages use stand for something: `models/chat`, `job.yaml`,
`cat.jpg`, `s3://bucket`. Names that cannot be made here stand for others (World.words).
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import torch
import yaml

from docs.make.pages import copy_repository
from docs.make.pictures import environment
from jobs.demo.scenes import draw, scene
from jobs.demo.table import scene_table, write
from tests.batch.head import Head, running_head
from tests.checkpoint.sat_builder import config_of, tensor_names, wrap, write_sat
from tests.s3 import s3_server

TIMEOUT_S = 600
HUB_ID = "lmsys/vicuna-7b-v1.5"  # whose tokenizer is the demo's here
ROWS = 8
SHARED = "/shared/"
# pip changes nothing here: it says whether the environment of the tests has what a command would install.
DRY_RUN = "pip install --dry-run --no-index --no-build-isolation"


@dataclass(frozen=True)
class World:
    """Where commands run. folder: the copy. head: of a cluster; env: of a command."""

    folder: Path
    head: Head
    env: Mapping[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command as a page has it, with its names made real."""
        return subprocess.run(
            ["bash", "-ec", self.real(command)],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def real(self, command: str) -> str:
        """The command with names of this world for those that only stand for something."""
        command = command.replace(".venv/bin/", "")
        if re.search(r"\bpip install docs/custom_strategy", command):
            offline = "--quiet --no-index --no-deps --no-build-isolation --upgrade --target site"
            command = command.replace("pip install", f"pip install {offline}")
        else:
            command = command.replace("pip install", DRY_RUN)
        if re.search(r"\bcogbatch (logs|stop) (?!.*--address)", command):  # 8265 may be somebody else's
            command += f" --address {self.head.address}"
        if re.search(r"JOB_ID|raysubmit_\w+", command):
            command = re.sub(r"JOB_ID|raysubmit_\w+", self._newest_job(), command)
        for name, here in {
            "http://head:8265": self.head.address,
            SHARED: f"{self.folder}{SHARED}",
            "RUN_DIR": "runs/captions",
            "JOB.yaml": "job.yaml",
            " MODEL ": " models/chat ",
        }.items():
            command = command.replace(name, here)
        return command

    def _newest_job(self) -> str:
        done = self.run(f"cogbatch list --address {self.head.address} --json")
        jobs = json.loads(done.stdout.splitlines()[-1])["jobs"]
        return str(jobs[0]["job_id"])


@contextmanager
def small_world(folder: Path) -> Iterator[World]:
    """The world, gone when the block ends but for its files."""
    copy = copy_repository(folder / "copy")
    with s3_server() as bucket, running_head() as head:
        env = environment(copy, cache=folder / "cache") | head.environment | bucket
        env |= {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
        env["PYTHONPATH"] = os.pathsep.join([str(copy), str(copy / "site")])
        env.pop("RAY_AUTH_MODE", None)  # of a job's own Ray; a token alone is used for heads
        world = World(copy, head, env)
        _put_files(copy, folder / "hub")
        _put_checkpoints(copy)
        _must(
            world,
            "cogbatch run jobs/demo/job.yaml",
            "cogbatch run jobs/demo/diverse.yaml",
            "cogbatch run job.yaml",
            f"cogbatch convert jobs/demo/checkpoint models/cogvlm-chat-hf --tokenizer {HUB_ID}",
        )
        _put_objects(copy)
        _damage(copy)
        yield world


def _must(world: World, *commands: str) -> None:
    for command in commands:
        done = world.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def _put_files(copy: Path, hub: Path) -> None:
    """Photos, jobs and a sweep, and a tokenizer in the cache of the hub's client."""
    draw(scene(1)).save(copy / "cat.jpg")
    (copy / "build").mkdir()
    for name in ("build/scenes-300.parquet", "photos.parquet"):
        write(scene_table(num_scenes=ROWS, seed=5), copy / name, row_group_size=ROWS)
    demo = yaml.safe_load((copy / "jobs/demo/job.yaml").read_text())
    job = demo | {"input": demo["input"] | {"path": "photos.parquet"}, "output": {"path": "runs/captions"}}
    _write(copy / "job.yaml", job)
    _write(
        copy / "sweep.yaml",
        yaml.safe_load((copy / "jobs/demo/sweep.yaml").read_text())
        | {"name": "small", "grid": {"generation.temperature": [0.5, 0.8]}, "points": []}
        | {"output": {"path": "runs/small-sweep"}},
    )
    (copy / "photos").mkdir()
    draw(scene(2)).save(copy / "photos" / "a.jpg")
    shared, other = copy / SHARED.strip("/"), copy / "other"  # of commands, and of the jobs that ship
    for name in ("runs", "models", "photos"):
        for folder in (shared, other):
            folder.mkdir(exist_ok=True)
            (folder / name).symlink_to(copy / name)
    (other / "runs").unlink()
    for spec in copy.glob("jobs/*.yaml"):
        spec.write_text(spec.read_text().replace(SHARED, f"{other}/"))
    owner, name = HUB_ID.split("/")
    known = hub / "hub" / f"models--{owner}--{name}"
    shutil.copytree(copy / "jobs/demo/tokenizer", known / "snapshots" / ("0" * 40))
    (known / "refs").mkdir()
    (known / "refs" / "main").write_text("0" * 40)


def _put_checkpoints(copy: Path) -> None:
    """The demo's own, once as it is, once with LoRA, and once as a directory that lacks something."""
    demo = copy / "jobs/demo/checkpoint"
    shutil.copytree(demo, copy / "cogvlm-chat-v1.1")
    values = json.loads((demo / "model_config.json").read_text())
    state = torch.load(demo / "1/mp_rank_00_model_states.pt", weights_only=True)["module"]
    for name in tensor_names(config_of(values)):
        if re.search(r"attention\.(query_key_value|dense)\.weight$", name.sat):
            wrap(state, name, lora_rank=4, num_ranks=1)
    for key in state:
        if ".matrix_" in key:
            state[key] *= 0.1
    fine_tuned = {
        "model_class": "FineTuneTestCogVLMModel",
        "use_lora": True,
        "lora_rank": 4,
        "pre_seq_len": 8,
    }
    write_sat(copy / "checkpoints/finetune-lora", values | fine_tuned, [state])


def _damage(copy: Path) -> None:
    """A directory that others made: converted, and then without what makes it load."""
    foreign = copy / "models/cogvlm-chat-hf"
    (foreign / "cogbatch_manifest.json").unlink()
    config = foreign / "config.json"
    values = json.loads(config.read_text())
    del values["auto_map"]
    config.write_text(json.dumps(values))


def _put_objects(copy: Path) -> None:
    """The bucket: a model, and rows under the names that pages use."""
    store = fsspec.filesystem("s3")
    store.put(str(copy / "models/cogvlm-chat-hf"), "bucket/models/chat", recursive=True)
    for folder in ("data", "images"):
        store.put(str(copy / "photos.parquet"), f"bucket/{folder}/a.parquet")


def _write(path: Path, tree: object) -> None:
    text = io.StringIO()
    yaml.safe_dump(tree, text)
    path.write_text(text.getvalue())
