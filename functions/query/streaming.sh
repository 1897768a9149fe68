#!/bin/sh
# AWS_LAMBDA_EXEC_WRAPPER: "$1" is the interpreter that would run the managed runtime, which puts the layers on the path.
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}/opt/python:${LAMBDA_RUNTIME_DIR:-/var/runtime}"
exec "$1" -u -m functions.query
