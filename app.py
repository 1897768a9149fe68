"""What `cdk` runs: one platform per stage; synthesises offline, without an account and without Docker."""

from __future__ import annotations

import os

# Before the CDK is imported: its engine says on every start, in eleven lines, which Node.js it would rather have.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")

from cdk.platform import app

if __name__ == "__main__":
    app().synth()
