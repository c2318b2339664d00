"""An S3 server on loopback, in a process of its own that ends with the one that asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import fsspec

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def s3_server(*, bucket: str = "bucket") -> Iterator[Mapping[str, str]]:
    """The environment that leads to the server; s3:// of this process leads there inside the block."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdout is not None
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        try:
            fsspec.filesystem("s3").mkdir(bucket)
            yield environment
        finally:
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            assert server.stdin is not None
            server.stdin.close()
