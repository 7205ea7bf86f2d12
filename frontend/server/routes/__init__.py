"""The routes, one module for each group. Errors are raised, and answered in server/errors.py."""
