"""The routes, one module per endpoint: a body in, a response out. What goes wrong is raised, and answered in app.py."""
