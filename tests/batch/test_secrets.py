"""A job whose input and images are URLs with secrets: none of them is in anything that it leaves or says."""

from __future__ import annotations

import base64
import functools
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from fake_backend import FAKE, FakeEngine, MakeSpec
from job_files import ENVIRONMENT, driver_of, rows_of
from PIL import Image

from cogbatch.batch.job import run_job
from cogbatch.batch.plan import plan_job
from cogbatch.batch.progress import PlainProgress
from cogbatch.batch.retry import retry_failed
from cogbatch.batch.spec import JobSpec, parse_spec
from cogbatch.cli.app import main
from cogbatch.dataset import open_dataset
from cogbatch.errors import CogbatchError, ImageError, RunDirectoryError
from cogbatch.eval.report import write_report
from cogbatch.images import ImageLimits, load_image
from cogbatch.types import GenerationParams, GenerationRequest, RequestError, RequestOutput

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PAIR = base64.b64encode(b"ann:s3cret").decode()


class Looking(FakeEngine):
    """Loads the image as the real engine does."""

    def _answer(self, request: GenerationRequest, params: GenerationParams) -> RequestOutput:
        try:
            if request.image is not None:
                load_image(request.image, limits=ImageLimits(allow_private_addresses=True, attempts=1))
        except ImageError as err:
            return RequestOutput(
                request.id, error=RequestError("image", "ImageError", str(err)), tag=request.tag
            )
        return super()._answer(request, params)


class Handler(SimpleHTTPRequestHandler):
    """Files for those who bring user and password."""

    def send_head(self):
        self.path = self.path.partition("?")[0]
        if self.headers["Authorization"] != f"Basic {PAIR}":
            self.send_error(401)
            return None
        return super().send_head()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[JobSpec]:
    """Three rows: an image, one that is not there, and one whose address is refused."""
    served = tmp_path / "served"
    served.mkdir()
    Image.new("RGB", (2, 2)).save(served / "a.png")
    handler = functools.partial(Handler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        root = f"http://ann:s3cret@127.0.0.1:{server.server_port}"
        images = [
            f"{root}/a.png?token=t0ken",
            f"{root}/none.png?X-Amz-Signature=t0ken",
            "ftp://ann:s3cret@h/x",
        ]
        lines = [{"id": f"i{n}", "image": image, "prompt": "say"} for n, image in enumerate(images)]
        (served / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        yield parse_spec(
            {
                "model": {"checkpoint": "m"},
                "input": {
                    "path": f"{root}/data.jsonl?token=t0ken",
                    "format": "jsonl",
                    "id_column": "id",
                    "prompt_column": "prompt",
                    "allow_private_addresses": True,
                },
                "output": {"path": str(tmp_path / "run")},
            }
        )
        server.shutdown()
        thread.join()


def left_behind(run: Path) -> str:
    """All that the run directory holds, as text."""
    texts = [path.read_bytes().decode("utf-8", "replace") for path in run.rglob("*") if path.is_file()]
    for part in run.glob("parts/*.parquet"):
        table = pq.read_table(part, partitioning=None)
        texts += [json.dumps(table.to_pylist()), str(table.schema.metadata), str(part)]
    return "\n".join(texts)


def test_no_secret_is_left_behind_or_said(spec: JobSpec, capsys: pytest.CaptureFixture[str]) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    said = io.StringIO()
    summary = run_job(spec, backend=replace(FAKE, open_engine=Looking), progress=PlainProgress(said))
    assert (summary.rows, summary.errors) == (3, 2)
    run = Path(spec.output.path)
    rows = pq.read_table(run / "parts", partitioning=None).to_pylist()
    port = spec.input.path.rpartition(":")[2].partition("/")[0]
    assert rows[0]["image"] == f"http://***@127.0.0.1:{port}/a.png?token=***"
    assert rows[0]["error"] is None  # it was fetched, with its user and password
    assert [row["error"] and row["error"]["stage"] for row in rows] == [None, "image", "image"]
    write_report(run)
    said.write(
        "\n".join([*summary.lines(), json.dumps(summary.to_json()), *plan_job(spec, backend=FAKE).lines()])
    )
    other = spec.model_copy(update={"generation": GenerationParams(seed=1)})
    with pytest.raises(CogbatchError) as caught:
        run_job(other, backend=FAKE)
    said.write(str(caught.value))
    with pytest.raises(CogbatchError, match=r"http://\*\*\*@") as caught:
        open_dataset(replace(spec.input, path=spec.input.path.replace("data", "none")))
    said.write(str(caught.value))
    with pytest.raises(SystemExit):
        main(["run", f"http://ann:s3cret@h/{port}?token=t0ken", "--debug"])
    for text in (left_behind(run), said.getvalue(), *capsys.readouterr()):
        assert "s3cret" not in text
        assert "t0ken" not in text
        assert PAIR not in text


ENGINE_SECRET, STORE_SECRET = "hf_s3cretOfTheHub", "wJal/rXUt+s3cret/bPxRfi"


@pytest.mark.slow
def test_no_secret_of_the_environment_is_left_behind_or_said(make_spec: MakeSpec, tmp_path: Path) -> None:
    """Errors that quote one: of an image, and of an engine that ends its process, with others and alone."""
    spec = make_spec(
        ["say", "tell HF_TOKEN", "tell AWS_SECRET_ACCESS_KEY", "crash HF_TOKEN"],
        model={"tokenizer": f"https://h/m?x={ENGINE_SECRET}"},
        errors={"shard_attempts": 1, "max_error_rate": 1.0},
        cluster={"max_workers": 1},
    )
    secrets = {"HF_TOKEN": ENGINE_SECRET, "AWS_SECRET_ACCESS_KEY": STORE_SECRET}
    done = subprocess.run(
        driver_of(spec, tmp_path), env=ENVIRONMENT | secrets, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = rows_of(spec)
    messages = {name: row["error"]["message"] for name, row in rows.items() if row["error"]}  # type: ignore[index]
    assert messages["i1"].startswith("401 for *** at https://h/")
    assert messages["i2"].startswith("401 for *** at https://h/")
    assert messages["i3"].endswith("alone in a worker: the engine failed: RuntimeError: the GPU fell off ***")
    left = left_behind(Path(spec.output.path))
    assert "https://h/m?x=***" in left  # job.json
    for text in (left, done.stdout, done.stderr):
        assert "s3cret" not in text


def test_what_job_json_does_not_keep_is_asked_for_and_a_new_secret_is_the_same_job(spec: JobSpec) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    backend = replace(FAKE, open_engine=Looking)
    run_job(spec, backend=backend)
    with pytest.raises(
        RunDirectoryError, match=r"does not keep the secrets of input\.path.*--set input\.path=URL"
    ):
        retry_failed(spec.output.path, backend=backend)
    anew = spec.input.path.replace("t0ken", "another")
    assert retry_failed(spec.output.path, overrides=[f"input.path={anew}"], backend=backend).rows_retried == 2
