"""What AWS is asked for: three stages, each of four stacks."""

import os

# Before the CDK is imported: its engine says on every start, in eleven lines, which Node.js it would rather have.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
