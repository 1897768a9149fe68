"""What the user's own environment says to the platform: which model server to use, and settings for the functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from local.environment import Model
from local.service import ServiceError
from rag import tesseract
from rag.settings import PREFIX, Settings

_MODEL = frozenset({"RAG_EMBEDDING_MODEL", "RAG_EMBEDDING_DIMENSIONS", "RAG_CHAT_MODEL"})
# What the platform sets itself, for whichever function: from a shell it would name another platform's parts.
OURS = _MODEL | {
    "RAG_STAGE",
    "RAG_DATABASE_URL",
    "RAG_DATABASE_AUTH",
    "RAG_DATABASE_SECRET",
    "RAG_ROLE_SECRETS",
    "RAG_IAM_ROLES",
    "RAG_REDIS_URL",
    "RAG_REDIS_SECRET",
    "RAG_BUCKET",
    "RAG_QUEUE_URL",
    "RAG_RETRY_QUEUE_URL",
    "RAG_MAINTENANCE_QUEUE_URL",
    "RAG_ERASURE_QUEUE_URL",
    "RAG_AUDIT_DAYS",
    "RAG_BACKUP_DAYS",
    "RAG_OIDC",
    "RAG_DEAD_LETTER_QUEUE_URL",
    "RAG_VISIBILITY_SECONDS",
    "RAG_EVENT_BUS",
    "RAG_WEBHOOK_SECRET",
    "RAG_MAX_RECEIVES",
    "RAG_MODEL_URL",
    "RAG_MODEL_SECRET",
    "RAG_TOKENIZER_PATH",
}
PASSED = frozenset(PREFIX + name.upper() for name in Settings.model_fields) - OURS


@dataclass(frozen=True, slots=True)
class Shell:
    """`settings` are `RAG_*` variables for every function; without a `model` the built-in model server is started."""

    model: Model | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def read(variables: Mapping[str, str]) -> Shell:
    """Take what concerns the platform; ServiceError names a variable whose value cannot be used."""
    settings = {name: value for name, value in variables.items() if name in PASSED and value}
    if "RAG_OCR" not in settings and variables.get("PATH") and tesseract.program(variables["PATH"]):
        settings["RAG_OCR"] = "tesseract"
    _checked(settings)
    return Shell(_real_model(variables), settings)


def _real_model(variables: Mapping[str, str]) -> Model | None:
    """The model server that the environment names; None without OPENAI_API_KEY."""
    api_key = variables.get("OPENAI_API_KEY")
    if not api_key:
        return None
    named = _checked({name: variables[name] for name in _MODEL if name in variables})
    return Model(
        url=variables.get("OPENAI_BASE_URL") or named.model_url,
        embedding_model=named.embedding_model,
        embedding_dimensions=named.embedding_dimensions,
        chat_model=named.chat_model,
        api_key=api_key,
    )


def _checked(variables: Mapping[str, str]) -> Settings:
    try:
        return Settings.from_environment(variables)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise ServiceError(f"{name}={first['input']} cannot be used: {first['msg']}; correct it or unset it") from None
