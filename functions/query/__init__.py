"""The HTTP API."""

from __future__ import annotations

import gc

# Until the handler is ready: what is imported stays, and looking for garbage among it again and again is a tenth of the
# initialisation.
gc.set_threshold(1_000_000)

from pydantic import BaseModel, ConfigDict

# Before FastAPI is imported, which describes OpenAPI by models of its own: what checks a model is built when it is
# first used, and most never are in the life of a sandbox. A seventh of the initialisation.
BaseModel.model_config = ConfigDict(defer_build=True)
