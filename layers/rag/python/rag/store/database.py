"""A connection for each thread of an execution environment, and the one way to be inside a transaction of a scope."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from pgvector import HalfVector, SparseVector
from pgvector.psycopg.halfvec import HalfVectorBinaryDumper
from pgvector.psycopg.sparsevec import SparseVectorBinaryDumper
from psycopg import generators
from psycopg.pq import TransactionStatus
from psycopg.types import TypeInfo

from rag.deadline import NEVER, Deadline
from rag.errors import UnavailableError
from rag.store.binary import Binary, BinaryDumper
from rag.store.statements import statement

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from rag.types import Scope

Row = tuple[Any, ...]
T = TypeVar("T")

# The server is well and has ended a statement; another run would only take as long.
_ENDED = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
# What a new connection may mend: the second is a server that is no longer the primary.
_LOST = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)

_VECTORS = ("vector", "sparsevec")

# The scope that a thread is in, of whichever Database.
_thread = threading.local()


# What a new connection may take; libpq waits for no less than the second.
_CONNECT_SECONDS, _LEAST_CONNECT_SECONDS = 5, 2
# How long whoever got no connection waits at most before asking again: not when all others do.
_BACKOFF_SECONDS = 0.2
_JITTER = random.SystemRandom()


class _LostError(UnavailableError):
    """The connection, or the server behind it, is gone."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"the database is not available: {type(error).__name__}", retry_after_seconds=1)


class _RefusedError(_LostError):
    """There is nobody to connect to, or there are too many who did (53300)."""


class Connection(psycopg.Connection[Row]):
    """One that waits for the server until `deadline` and no longer; it is of no use after that."""

    deadline: Deadline = NEVER

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        if self.deadline != NEVER:
            left = max(self.deadline.remaining(), 0)
            timeout = left if timeout is None else min(timeout, left)
        return super().wait(gen, interval, timeout)


class Transaction:
    """What a piece of work may do in its scope: inside one transaction, which begins with its first statement.

    Without a `begin` each statement is a transaction of its own, and must name the scope itself.
    """

    def __init__(self, connection: Connection, scope: Scope, begin: str | None) -> None:
        self.scope = scope
        self._connection = connection
        self._bound = {
            "tenant": scope.tenant_id,
            "identities": None if scope.identities is None else list(scope.identities),
            "collections": None if scope.collections is None else list(scope.collections),
        }
        self._begin = begin

    def rows(self, name: str, /, *, binary: bool = False, **parameters: object) -> list[Row]:
        """Run the named statement and return all its rows."""
        with self._cursor(binary=binary) as cursor:
            return cursor.execute(statement(name), self._bound | parameters).fetchall()

    def first_rows(self, name: str, /, **parameters: object) -> list[Row]:
        """As `rows`, in one round trip with the beginning of the transaction where it is its first statement."""
        if self._begin is None:
            return self.rows(name, binary=True, **parameters)
        return self._rows_at_once(name, parameters)

    def last_rows(self, name: str, /, **parameters: object) -> list[Row]:
        """As `first_rows`, and with the commit too; nothing can be run after it."""
        return self._rows_at_once(name, parameters, "commit")

    def _rows_at_once(self, name: str, parameters: dict[str, object], *after: str) -> list[Row]:
        before = [] if self._begin is None else [self._begin]
        self._begin = None
        # Binding on the client's side sends several statements at once.
        with psycopg.ClientCursor(self._connection) as cursor:
            text = b";".join(map(statement, (*before, name, *after)))
            cursor.execute(text, self._bound | parameters)
            results = [cursor.fetchall() if cursor.description else [] for _ in cursor.results()]
            return results[-1 - sum(statement(each).count(b";") + 1 for each in after)]

    def commit(self) -> None:
        """End the transaction, if there is one: with an error where its tenant is not that of the scope any more."""
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            psycopg.ClientCursor(self._connection).execute(statement("commit"), self._bound)

    def run(self, name: str, /, **parameters: object) -> None:
        """Run the named statement, which returns nothing that matters."""
        with self._cursor() as cursor:
            cursor.execute(statement(name), self._bound | parameters)

    def run_many(self, name: str, rows: list[dict[str, object]]) -> None:
        """Run the named statement once per row, in one round trip."""
        if not rows:
            return
        with self._cursor() as cursor:
            cursor.executemany(statement(name), [self._bound | row for row in rows])

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
            psycopg.ClientCursor(self._connection).execute(statement(self._begin), self._bound)
            self._begin = None
        return self._connection.cursor(binary=binary)


class Database:
    """Connections that are made on first use, kept between invocations and made again when they were lost.

    As many as threads were at work at once, which may share it: each transaction has one to itself.

    No prepared statements (RDS Proxy would pin the session, and a generic plan would miss partial indexes), no session
    state: what a transaction needs is set inside it. Nobody waits beyond `deadline`: the server's own time-outs end
    nothing where it is itself what stands still.
    """

    def __init__(self, url: str, password: Callable[[], str]) -> None:
        self._url = url
        self._password = password
        self.deadline = NEVER
        # The last one left is the next one taken: with one thread there is one.
        self._idle: list[Connection] = []

    def read(self, scope: Scope, work: Callable[[Transaction], T]) -> T:
        """Return `work`'s result from one snapshot; a lost connection is made again once, then UnavailableError."""
        return self._once_more(lambda: self._inside("begin_read", scope, work))

    def by_statement(self, scope: Scope, work: Callable[[Transaction], T]) -> T:
        """Return `work`'s result from statements that are transactions, and see a snapshot, each by itself.

        What they write must be repeatable, as for `write`.
        """
        return self._once_more(lambda: self._inside(None, scope, work))

    def write(self, scope: Scope, work: Callable[[Transaction], T]) -> T:
        """Return `work`'s result after its commit.

        `work` must be repeatable: when the connection is lost it runs once more, and whether the first run was
        committed is then unknown.
        """
        return self._once_more(lambda: self._inside("begin_write", scope, work))

    def query(self, name: str, /, **parameters: object) -> list[Row]:
        """Run one statement outside any tenant, in its own transaction."""

        def attempt() -> list[Row]:
            with self._connection() as connection:
                return connection.execute(statement(name), parameters).fetchall()

        return self._once_more(attempt)

    def tell(self, name: str, /, **parameters: object) -> None:
        """Send one statement outside any tenant whose outcome nobody waits for or hears of.

        It goes over a connection that is open and idle, if there is one, behind whatever was answered before. Whoever
        takes that connection next comes after it.
        """
        with suppress(IndexError, psycopg.Error):
            connection = self._idle.pop()
            connection.pgconn.send_query(psycopg.ClientCursor(connection).mogrify(statement(name), parameters).encode())
            self._idle.append(connection)

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
        except _LostError as error:
            if self.deadline.remaining() < _LEAST_CONNECT_SECONDS:
                raise
            if isinstance(error, _RefusedError):
                _back_off()
            # Whatever ended one is likely to have ended all.
            self.close()
            return attempt()

    def _inside(self, begin: str | None, scope: Scope, work: Callable[[Transaction], T]) -> T:
        with _alone(scope), self._connection() as connection:
            transaction = Transaction(connection, scope, begin)
            result = work(transaction)
            transaction.commit()
        return result

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
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

    def _leave(self, connection: Connection) -> None:
        try:
            if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute("rollback")
        except psycopg.Error:
            connection.close()
        if not connection.closed:
            self._idle.append(connection)

    def _taken(self) -> Connection:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                connection.deadline = self.deadline
                if _ready(connection):
                    return connection
        try:
            return log_in(self._url, self._password, self.deadline)
        except _LOST as error:
            raise _RefusedError(error) from error


def _ready(connection: Connection) -> bool:
    """Whether it can be used, once what was told over it (`Database.tell`) is through."""
    try:
        if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
            connection.wait(generators.fetch_many(connection.pgconn))
    except psycopg.Error:
        connection.close()
    return not connection.closed


@contextmanager
def _alone(scope: Scope) -> Iterator[None]:
    """Whoever is inside one scope cannot work in another before it is left: what was read in one would go to it."""
    outer: Scope | None = getattr(_thread, "scope", None)
    if outer not in (None, scope):
        msg = "a transaction of another scope is open in this thread"
        raise RuntimeError(msg)
    _thread.scope = scope
    try:
        yield
    finally:
        _thread.scope = outer


def log_in(url: str, password: Callable[[], str], deadline: Deadline = NEVER) -> Connection:
    """Connect with the `password` of now; where it is refused, once more with the one of then: it may be a new one.

    That there is no place for this role (53300) looks the same to libpq.

    UnavailableError when both are refused, psycopg.OperationalError when there is nobody to refuse it.
    """
    for number in range(2):
        if number:
            _back_off()
        try:
            return connect(url, password() or None, deadline)
        except psycopg.OperationalError as error:
            # libpq tells no SQLSTATE of a connection that fails, but whether the server had asked for a password.
            if error.pgconn is None or not error.pgconn.used_password:
                raise
            refusal = error
    msg = "the database refuses the login of this function's role"
    raise UnavailableError(msg) from refusal


def _back_off() -> None:
    time.sleep(_JITTER.uniform(0, _BACKOFF_SECONDS))


def connect(url: str, password: str | None = None, deadline: Deadline = NEVER) -> Connection:
    """Connect in autocommit mode, with vectors sent in binary."""
    left = deadline.remaining()
    if left <= 0:
        msg = "there is no time left to connect in"
        raise psycopg.errors.ConnectionTimeout(msg)
    connection = Connection.connect(
        url,
        password=password,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=max(int(min(_CONNECT_SECONDS, left)), _LEAST_CONNECT_SECONDS),
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
        application_name="rag",
    )
    connection.deadline = deadline
    # Without an oid the server takes the type from the cast or the column, so that no catalogue query is needed.
    connection.adapters.register_dumper(HalfVector, HalfVectorBinaryDumper)
    connection.adapters.register_dumper(SparseVector, SparseVectorBinaryDumper)
    connection.adapters.register_dumper(Binary, BinaryDumper)
    return connection
