"""The job on Ray: spec, driver, workers, monitor. The only package that imports ray."""

import os

# Read by Ray when it is imported. Telemetry is off unless somebody asks for it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
