"""How a test's own connection says whose rows it looks at."""

from __future__ import annotations

# Until the connection ends: everything of the tenant that is its parameter.
ALL_OF = (
    "select set_config('app.tenant', %s, false), set_config('app.identities', '*', false),"
    " set_config('app.collections', '*', false)"
)
