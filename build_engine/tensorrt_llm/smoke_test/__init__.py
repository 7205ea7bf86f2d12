"""The smoke test: before an engine is published, Triton loads it and its answers are checked.

run.py has the checks in order. triton.py starts the server, client.py talks to it. The checks: answers.py (are they
words, and the right ones), inputs.py (every optional input), cancel.py (a closed connection, `stop`).
"""
