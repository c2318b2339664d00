"""What a verification found: one line per check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "warning", "skipped", "FAILED"]


@dataclass(frozen=True)
class Check:
    """detail: what was seen, and if it is not ok what to do. measured: numbers, for programs."""

    name: str
    status: Status
    detail: str
    measured: dict[str, Any] | None = None

    @property
    def line(self) -> str:
        return f"{self.status:<8} {self.name}: {self.detail}"


@dataclass(frozen=True)
class Verification:
    """ok: no check failed; a warning or a check that found nothing to check is no failure."""

    path: Path
    against: Path | None
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.status != "FAILED" for check in self.checks)

    @property
    def summary(self) -> str:
        failed = [check.name for check in self.checks if check.status == "FAILED"]
        if failed:
            return f"{self.path}: FAILED ({', '.join(failed)})"
        return f"{self.path}: ok ({len(self.checks)} checks)"

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "against": None if self.against is None else str(self.against),
            "ok": self.ok,
            "checks": [asdict(check) for check in self.checks],
        }
