"""The routes, one module for each group. They raise errors, and server/errors.py makes responses of them."""
