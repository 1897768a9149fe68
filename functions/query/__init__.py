"""The HTTP API."""

from __future__ import annotations

import gc
import sys

# Until the handler is ready: what is imported stays, and looking for garbage among it again and again is a tenth of the
# initialisation.
gc.set_threshold(1_000_000)

# FastAPI asks of every field whether it is a model of pydantic's first version. None of ours is, and the layer has it
# not: each time it would be looked for on the whole path, a fiftieth of the initialisation.
sys.modules["pydantic.v1"] = None  # type: ignore[assignment]  # the import system's own mark of what cannot be imported

from pydantic import BaseModel, ConfigDict

# Before FastAPI is imported, which describes OpenAPI by models of its own: what checks a model is built when it is
# first used, and most never are in the life of a sandbox. A seventh of the initialisation.
BaseModel.model_config = ConfigDict(defer_build=True)
