"""One connection per execution environment, and the one way to be inside a transaction of a tenant."""

from __future__ import annotations

from collections.abc import Callable
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
    """A connection that is made on first use, kept between invocations and made again when it was lost.

    No prepared statements (RDS Proxy would pin the session, and a generic plan would miss partial indexes), no session
    state: what a transaction needs is set inside it.
    """

    def __init__(self, url: str, password: Callable[[], str]) -> None:
        self._url = url
        self._password = password
        self._connection: psycopg.Connection[Row] | None = None

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

    def query(self, name: str, /, **parameters: object) -> list[Row]:
        """Run one statement outside any tenant, in its own transaction."""

        def attempt() -> list[Row]:
            try:
                return self._open().execute(statement(name), parameters).fetchall()
            except _LOST as error:
                raise _LostError(error) from error

        return self._once_more(attempt)

    def alive(self) -> bool:
        """Whether the database answers now."""
        try:
            return bool(self.query("alive"))
        except UnavailableError:
            return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once_more(self, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except _LostError:
            self.close()
            return attempt()

    def _inside(self, begin: str | None, tenant_id: uuid.UUID, work: Callable[[Transaction], T]) -> T:
        connection = self._open()
        try:
            result = work(Transaction(connection, tenant_id, begin))
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute("commit")
        except _ENDED as error:
            msg = f"the database ended the statement: {type(error).__name__}"
            raise UnavailableError(msg) from error
        except _LOST as error:
            self.close()
            raise _LostError(error) from error
        finally:
            self._leave(connection)
        return result

    def _leave(self, connection: psycopg.Connection[Row]) -> None:
        """End a transaction that an exception left open; a connection that can't is dropped."""
        if connection.closed or connection.info.transaction_status == TransactionStatus.IDLE:
            return
        try:
            connection.execute("rollback")
        except psycopg.Error:
            self.close()

    def _open(self) -> psycopg.Connection[Row]:
        if self._connection is None or self._connection.closed:
            try:
                self._connection = log_in(self._url, self._password)
            except _LOST as error:
                raise _LostError(error) from error
        return self._connection


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
