"""`make run` and its first minute: is this machine able to run everything, and what goes into .venv.

Plain Python without packages, because it runs before any is installed.
"""
