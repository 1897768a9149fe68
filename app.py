"""What `cdk` runs: one platform per stage; synthesises offline, without an account and without Docker."""

from __future__ import annotations

from cdk.platform import app

if __name__ == "__main__":
    app().synth()
