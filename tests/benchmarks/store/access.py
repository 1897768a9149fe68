"""What it costs that the database shows each caller only what it may see: row-level security on beside off.

    python -m tests.benchmarks.store.access [--documents 10000] [--chunks 1,3] [--queries 200] [--json]

starts a PostgreSQL of its own in a temporary directory and loads one collection, of as many documents with as many
chunks each as are said. In copies of the database row-level security is off, or half of the documents are for a group
alone. The same questions go to all copies in turn, so that whatever else the machine does hits all; and beside them to
the authorizer's look-up of an API key and the search of whom it names.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from rag import calling, keys
from rag.deadline import Deadline
from rag.settings import Settings
from rag.store.access import KeyStore
from rag.store.database import Database
from rag.store.maintenance import IndexMaintenance
from rag.types import Mode, Scope
from tests.benchmarks.store import synthetic
from tests.benchmarks.store.__main__ import _load, _machine, _numbers, say
from tests.benchmarks.store.asking import Asking
from tests.benchmarks.store.bulk import Bulk, Document, Place
from tests.benchmarks.store.corpus import SEED, Question
from tests.benchmarks.store.report import _table
from tests.benchmarks.store.server import OWNER, PRODUCT, Server, server
from tests.benchmarks.store.workspace import printed, workspace

JSON = dict[str, Any]
MODES: tuple[Mode, ...] = ("dense", "hybrid", "lexical")
OFF, HALF = "rag_off", "rag_half"
WARM_UP = 15
OFF_NAME, UNAUTHENTICATED, AUTHORISED = "row-level security off", "an admin", "a reader by API key"
MOST_ON, MOST_AUTHORISED = 1.2, 1.15
_MEMBER, _STRANGER = ("key:member", "group:staff"), ("key:stranger",)
# Who asks → which database, and in what scope: identities, collections.
ASKING: Mapping[str, tuple[str, tuple[str, ...] | None, tuple[str, ...] | None]] = {
    OFF_NAME: (OFF, None, None),
    UNAUTHENTICATED: (PRODUCT, None, None),
    "a reader": (PRODUCT, _STRANGER, None),
    AUTHORISED: (PRODUCT, _STRANGER, None),
    "a reader of one collection": (PRODUCT, _STRANGER, ("default",)),
    "half restricted, an admin": (HALF, None, None),
    "half restricted, a member": (HALF, _MEMBER, None),
    "half restricted, no member": (HALF, _STRANGER, None),
}
# What the aim speaks of: everybody who sees everything.
AIMED_AT = (UNAUTHENTICATED, "a reader", "a reader of one collection")

_TABLES = "select oid::regclass::text from pg_class where relrowsecurity"
_KEY = "insert into api_keys (tenant_id, id, digest, role) values (%s, %s, %s, 'reader')"
_RESTRICT = "update documents set allowed_principals = array['group:staff'] where key::int % 2 = 1"


def measured(started: Server, corpus: synthetic.Synthetic, documents: int, each: int, options: Any) -> JSON:
    """One size: load it, index it where it is large, copy it, ask."""
    say(f"{documents:,} documents of {each}: loading")
    for name in (OFF, HALF):
        started.drop(name)
    bulk = Bulk(started, corpus.dimensions)
    [place] = bulk.tenants(["asked"])
    bulk.load(corpus, _documents(place, documents, each), lambda *_: None)
    key, key_id, digest = keys.new()
    bulk.connection.execute(_KEY, [place.tenant, key_id, digest])
    bulk.close()
    IndexMaintenance(started.url(OWNER, PRODUCT), str, threshold=options.index_chunks, memory_mib=1000).run(
        Deadline.after(3600)
    )
    _copy(started, OFF, *(f"alter table {table} disable row level security" for table in _secured(started)))
    _copy(started, HALF, _RESTRICT)
    for name in (PRODUCT, OFF, HALF):
        started.vacuum(name)
    size = documents * each
    known = np.random.default_rng([SEED, size]).choice(size, size=options.queries, replace=options.queries > size)
    say(f"{documents:,} documents of {each}: asking")
    questions = corpus.questions(map(int, known), seed=size)
    return {
        "documents": documents,
        "chunks": size,
        "load": _load(),
        **ask(started, corpus, place.tenant, key, questions),
    }


def ask(
    started: Server, corpus: synthetic.Synthetic, tenant: uuid.UUID, key: str, questions: Sequence[Question]
) -> JSON:
    """Each question of everyone, in another order each time; how many lists were short.

    p50 in milliseconds of the clock and of the server's processes, which tell what a busy machine's clock does not.
    """
    asking = {name: Asking(started.url("rag_query", name), corpus.dimensions) for name in (PRODUCT, OFF, HALF)}
    authorizer = Database(started.url("rag_authorize", PRODUCT), str)
    taken: dict[str, dict[str, list[float]]] = {mode: {name: [] for name in ASKING} for mode in MODES}
    worked: dict[str, dict[str, list[float]]] = {mode: {name: [] for name in ASKING} for mode in MODES}
    short = dict.fromkeys(ASKING, 0)
    for number, question in enumerate([*questions[:WARM_UP], *questions]):
        for mode in MODES:
            order = list(ASKING.items())
            turn = number % len(order)
            for name, (database, identities, collections) in order[turn:] + order[:turn]:
                scope = Scope(tenant, identities, collections)
                serving = [asking[database]._database, *([authorizer] if name == AUTHORISED else [])]
                before, began = sum(map(_worked, serving)), time.perf_counter()
                if name == AUTHORISED:
                    scope = Scope.of(calling.caller(calling.context(KeyStore(authorizer).caller(key))))
                hits = asking[database].ask(scope, question, mode, filtered=False)
                if number >= WARM_UP:
                    taken[mode][name].append((time.perf_counter() - began) * 1000)
                    worked[mode][name].append(sum(map(_worked, serving)) - before)
                    short[name] += mode != "lexical" and len(hits) < 10
    for one in (authorizer, *asking.values()):
        one.close()
    return {
        "p50": _medians(taken),
        "server": _medians(worked),
        "short": short,
    }


def _medians(series: Mapping[str, Mapping[str, Sequence[float]]]) -> JSON:
    return {mode: {name: round(median(one), 3) for name, one in each.items()} for mode, each in series.items()}


def _worked(database: Database) -> float:
    """Milliseconds that the process of the idle connection has had a processor; 0 where the system does not tell."""
    pid = database._idle[-1].info.backend_pid if database._idle else 0
    told = Path(f"/proc/{pid}/schedstat")
    return int(told.read_text().split()[0]) / 1e6 if pid and told.exists() else 0.0


def _documents(place: Place, documents: int, each: int) -> Iterator[tuple[Place, Document]]:
    for number in range(documents):
        yield place, Document(number, number * each, (number + 1) * each, tagged=False)


def _secured(started: Server) -> list[str]:
    with psycopg.connect(started.postgres.dsn(database=PRODUCT)) as connection:
        return [name for (name,) in connection.execute(_TABLES).fetchall()]


def _copy(started: Server, name: str, *changes: str) -> None:
    with psycopg.connect(started.postgres.dsn(), autocommit=True) as connection:
        copied = sql.SQL("create database {} template {}")
        connection.execute(copied.format(sql.Identifier(name), sql.Identifier(PRODUCT)))
    with psycopg.connect(started.postgres.dsn(database=name), autocommit=True) as connection:
        for change in changes:
            connection.execute(change.encode())


def run(directory: Path, options: argparse.Namespace) -> JSON:
    """Everything that is measured, as JSON."""
    corpus = synthetic.generate(options.documents * max(options.chunks), options.dimensions, directory)
    with server(directory) as started:
        sizes = [measured(started, corpus, options.documents, each, options) for each in options.chunks]
    return {"machine": _machine(), "queries": options.queries, "sizes": sizes}


def report(result: JSON) -> str:
    """A table: of each kind p50, its ratio to row-level security off, and that of the server; then the aims."""
    columns = (each for mode in MODES for each in (f"{mode} ms", "× off", "server"))
    table = _table("who asks", (*columns, "short"))
    aims = []
    for size in result["sizes"]:
        for name in ASKING:
            figures = (
                figure
                for mode in MODES
                for figure in (size["p50"][mode][name], *(_ratio(size[of], mode, name) for of in ("p50", "server")))
            )
            table.add_row(name, *(f"{figure:.2f}" for figure in figures), f"{size['short'][name]}")
        table.add_section()
        for of, title in (("p50", "p50"), ("server", "the server's work")):
            on = max(_ratio(size[of], mode, name) for mode in MODES for name in AIMED_AT)
            authorised = max(_ratio(size[of], mode, AUTHORISED, UNAUTHENTICATED) for mode in MODES)
            aims.append(
                f"{size['chunks']:,} chunks, {title}: on × {on:.2f} of off at most (aim ≤ {MOST_ON:g}), "
                f"authorised × {authorised:.2f} of unauthenticated (aim ≤ {MOST_AUTHORISED:g})"
            )
    return "\n".join([printed(table), *aims])


def _ratio(medians: JSON, mode: str, name: str, beside: str = OFF_NAME) -> float:
    asked = medians[mode]
    return float(asked[name] / asked[beside]) if asked[beside] else 0.0


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.store.access", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--documents", type=int, default=10_000, help="in the collection (default 10000)")
    parser.add_argument("--chunks", type=_numbers, default=[1, 3], help="of each document (default 1,3)")
    parser.add_argument("--dimensions", type=int, default=384, help="width of the vectors (default 384)")
    parser.add_argument("--queries", type=int, default=200, help="questions (default 200)")
    parser.add_argument(
        "--index-chunks", type=int, default=Settings().index_chunks, help="RAG_INDEX_CHUNKS (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    return parser.parse_args(arguments)


def main(chosen: argparse.Namespace | None = None) -> None:
    chosen = chosen or options()
    with workspace() as directory:
        result = run(directory, chosen)
    print(json.dumps(result, indent=2) if chosen.json else report(result))


if __name__ == "__main__":
    main()
