"""In which language a test collection is written: what `rag eval` makes the collection in unless told."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from rag.lexical import LANGUAGES

# ISO 639-1, as the classifier names them → as Snowball does.
_NAMES = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "ja": "japanese", "ko": "korean", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali",
    "nl": "dutch", "nn": "norwegian", "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian",
    "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil", "th": "thai", "tr": "turkish", "zh": "chinese",
}  # fmt: skip
_SAMPLES = 200
_SAMPLE_BYTES = 400


def likely_language(documents: Iterable[bytes]) -> str:
    """Return the name of the language that the first documents are in; "simple" for one that has no stemmer here.

    Lui and Baldwin, "langid.py: An Off-the-shelf Language Identification Tool" (2012), in its maintained form.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 (0.5 s that no other command needs)

    sample = b"\n".join(document[:_SAMPLE_BYTES] for document in islice(documents, _SAMPLES))
    code, _ = LanguageIdentifier.from_pickled_model(MODEL_FILE).classify(sample.decode(errors="ignore"))
    name = _NAMES.get(code, "simple")
    return name if name in LANGUAGES else "simple"
