"""What both sides of the door without access control know of it."""

PATH = "/unauthenticated/search"
HANDLER = "tests.benchmarks.unauthenticated.handler"
# The variable that says where the platform keeps what it has.
DIRECTORY = "BENCHMARK_DIRECTORY"
