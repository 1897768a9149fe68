"""Tesseract, where the program is installed: a page's text from its picture, in a process bounded like a parser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from rag.errors import UnavailableError

_FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")
_PAGE_SECONDS = 60


def program(path: str | None = None) -> str | None:
    """Where it is, on this path or in the usual folders; None where it is not installed."""
    path = os.environ.get("PATH", "") if path is None else path
    return shutil.which("tesseract", path=os.pathsep.join(filter(None, (path, *_FOLDERS))))


class Tesseract:
    """Starts the program for each page; `languages` as it names them: eng, or eng+deu."""

    at_once = 1

    def __init__(self, program: str, languages: str = "eng") -> None:
        self._program = program
        self._languages = languages

    def read(self, picture: bytes) -> str:
        """The text of a page, none where it cannot be read; UnavailableError when the program cannot be run."""
        command = [self._program, "stdin", "stdout", "-l", self._languages]
        try:
            done = subprocess.run(
                [sys.executable, "-s", "-P", "-m", "rag.confinement", str(_PAGE_SECONDS), *command],
                input=picture,
                capture_output=True,
                check=False,
                timeout=_PAGE_SECONDS,
                env=_environment(),
            )
        except subprocess.TimeoutExpired:
            return ""
        if b"Failed loading language" in done.stderr:
            raise UnavailableError(f"Tesseract has no data for {self._languages}: install it, or set RAG_OCR_LANGUAGES")
        return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _environment() -> dict[str, str]:
    """Nothing that is secret; one thread, since pages are what is read in parallel."""
    return {
        "PATH": os.pathsep.join(_FOLDERS),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "LANG": "C.UTF-8",
        "OMP_THREAD_LIMIT": "1",
    }
