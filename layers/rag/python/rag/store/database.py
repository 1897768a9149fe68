"""A connection for each thread of an execution environment, and the one way to be inside a transaction of a tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from pgvector import HalfVector, SparseVector
from pgvector.psycopg.halfvec import HalfVectorBinaryDumper
from pgvector.psycopg.sparsevec import SparseVectorBinaryDumper
from psycopg.pq import TransactionStatus
from psycopg.types import TypeInfo

from rag.errors import UnavailableError
from rag.store.binary import Binary, BinaryDumper
from rag.store.statements import statement

if TYPE_CHECKING:
    import uuid

Row = tuple[Any, ...]
T = TypeVar("T")

# The server is well and has ended a statement; another run would only take as long.
_ENDED = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
# What a new connection may mend: the second is a server that is no longer the primary.
_LOST = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)

_VECTORS = ("vector", "sparsevec")


class _LostError(UnavailableError):
    """The connection, or the server behind it, is gone."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"the database is not available: {type(error).__name__}", retry_after_seconds=1)


class Transaction:
    """What a piece of work may do for its tenant: inside one transaction, which begins with its first statement.

    Without a `begin` each statement is a transaction of its own, and must name the tenant itself.
    """

    def __init__(self, connection: psycopg.Connection[Row], tenant_id: uuid.UUID, begin: str | None) -> None:
        self.tenant_id = tenant_id
        self._connection = connection
        self._begin = begin

    def rows(self, name: str, /, *, binary: bool = False, **parameters: object) -> list[Row]:
        """Run the named statement and return all its rows."""
        with self._cursor(binary=binary) as cursor:
            return cursor.execute(statement(name), {"tenant": self.tenant_id, **parameters}).fetchall()

    def first_rows(self, name: str, /, **parameters: object) -> list[Row]:
        """As `rows`, in one round trip with the beginning of the transaction where it is its first statement."""
        if self._begin is None:
            return self.rows(name, binary=True, **parameters)
        return self._rows_at_once(name, parameters)

    def last_rows(self, name: str, /, **parameters: object) -> list[Row]:
        """As `first_rows`, and with the commit too; nothing can be run after it."""
        return self._rows_at_once(name, parameters, b"commit")

    def _rows_at_once(self, name: str, parameters: dict[str, object], *after: bytes) -> list[Row]:
        before = [] if self._begin is None else [statement(self._begin)]
        self._begin = None
        # Binding on the client's side sends several statements at once.
        with psycopg.ClientCursor(self._connection) as cursor:
            text = b";".join([*before, statement(name), *after])
            cursor.execute(text, {"tenant": self.tenant_id, **parameters})
            results = [cursor.fetchall() if cursor.description else [] for _ in cursor.results()]
            return results[-1 - len(after)]

    def run(self, name: str, /, **parameters: object) -> None:
        """Run the named statement, which returns nothing that matters."""
        with self._cursor() as cursor:
            cursor.execute(statement(name), {"tenant": self.tenant_id, **parameters})

    def run_many(self, name: str, rows: list[dict[str, object]]) -> None:
        """Run the named statement once per row, in one round trip."""
        if not rows:
            return
        with self._cursor() as cursor:
            cursor.executemany(statement(name), [{"tenant": self.tenant_id, **row} for row in rows])

    def vector_types(self) -> tuple[int, int]:
        """The oids of vector and sparsevec, which differ from one database to the next."""
        known = self._connection.adapters.types
        for name, oid in () if known.get("sparsevec") else zip(_VECTORS, self.rows("vector_types")[0], strict=True):
            known.add(TypeInfo(name, oid, 0))
        vector, sparsevec = (known[name].oid for name in _VECTORS)
        return vector, sparsevec

    def _cursor(self, *, binary: bool = False) -> psycopg.Cursor[Row]:
        if self._begin is not None:
            # Client-side binding sends both of its statements in one round trip.
            psycopg.ClientCursor(self._connection).execute(statement(self._begin), {"tenant": self.tenant_id})
            self._begin = None
        return self._connection.cursor(binary=binary)


class Database:
    """Connections that are made on first use, kept between invocations and made again when they were lost.

    As many as threads were at work at once, which may share it: each transaction has one to itself.

    No prepared statements (RDS Proxy would pin the session, and a generic plan would miss partial indexes), no session
    state: what a transaction needs is set inside it.
    """

    def __init__(self, url: str, password: Callable[[], str]) -> None:
        self._url = url
        self._password = password
        # The last one left is the next one taken: with one thread there is one.
        self._idle: list[psycopg.Connection[Row]] = []

    def read(self, tenant_id: uuid.UUID, work: Callable[[Transaction], T]) -> T:
        """Return `work`'s result from one snapshot; a lost connection is made again once, then UnavailableError."""
        return self._once_more(lambda: self._inside("begin_read", tenant_id, work))

    def read_by_statement(self, tenant_id: uuid.UUID, work: Callable[[Transaction], T]) -> T:
        """Return `work`'s result from statements that are transactions, and see a snapshot, each by itself."""
        return self._once_more(lambda: self._inside(None, tenant_id, work))

    def write(self, tenant_id: uuid.UUID, work: Callable[[Transaction], T]) -> T:
        """Return `work`'s result after its commit.

        `work` must be repeatable: when the connection is lost it runs once more, and whether the first run was
        committed is then unknown.
        """
        return self._once_more(lambda: self._inside("begin_write", tenant_id, work))

    def account(self, tenant_id: uuid.UUID, work: Callable[[Transaction], T]) -> T:
        """As `write`, for what is counted: its commit does not wait for the disk."""
        return self._once_more(lambda: self._inside("begin_accounting", tenant_id, work))

    def query(self, name: str, /, **parameters: object) -> list[Row]:
        """Run one statement outside any tenant, in its own transaction."""

        def attempt() -> list[Row]:
            with self._connection() as connection:
                return connection.execute(statement(name), parameters).fetchall()

        return self._once_more(attempt)

    def alive(self) -> bool:
        """Whether the database answers now."""
        try:
            return bool(self.query("alive"))
        except UnavailableError:
            return False

    def close(self) -> None:
        """Close every connection that nobody is using."""
        while self._idle:
            self._idle.pop().close()

    def _once_more(self, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except _LostError:
            # Whatever ended one is likely to have ended all.
            self.close()
            return attempt()

    def _inside(self, begin: str | None, tenant_id: uuid.UUID, work: Callable[[Transaction], T]) -> T:
        with self._connection() as connection:
            result = work(Transaction(connection, tenant_id, begin))
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute("commit")
        return result

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Row]]:
        """One to oneself; a transaction that an exception left open is ended, and what is lost is not kept."""
        connection = self._taken()
        try:
            yield connection
        except _ENDED as error:
            msg = f"the database ended the statement: {type(error).__name__}"
            raise UnavailableError(msg) from error
        except _LOST as error:
            connection.close()
            raise _LostError(error) from error
        finally:
            self._leave(connection)

    def _leave(self, connection: psycopg.Connection[Row]) -> None:
        try:
            if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute("rollback")
        except psycopg.Error:
            connection.close()
        if not connection.closed:
            self._idle.append(connection)

    def _taken(self) -> psycopg.Connection[Row]:
        with suppress(IndexError):
            while (connection := self._idle.pop()).closed:
                pass
            return connection
        try:
            return log_in(self._url, self._password)
        except _LOST as error:
            raise _LostError(error) from error


def log_in(url: str, password: Callable[[], str]) -> psycopg.Connection[Row]:
    """Connect with the `password` of now; where it is refused, once more with the one of then: it may be a new one.

    UnavailableError when both are refused, psycopg.OperationalError when there is nobody to refuse it.
    """
    for _ in range(2):
        try:
            return connect(url, password() or None)
        except psycopg.OperationalError as error:
            # libpq tells no SQLSTATE of a connection that fails, but whether the server had asked for a password.
            if error.pgconn is None or not error.pgconn.used_password:
                raise
            refusal = error
    msg = "the database refuses the login of this function's role"
    raise UnavailableError(msg) from refusal


def connect(url: str, password: str | None = None) -> psycopg.Connection[Row]:
    """Connect in autocommit mode, with vectors sent in binary."""
    connection = psycopg.connect(
        url,
        password=password,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=5,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
        application_name="rag",
    )
    # Without an oid the server takes the type from the cast or the column, so that no catalogue query is needed.
    connection.adapters.register_dumper(HalfVector, HalfVectorBinaryDumper)
    connection.adapters.register_dumper(SparseVector, SparseVectorBinaryDumper)
    connection.adapters.register_dumper(Binary, BinaryDumper)
    return connection
