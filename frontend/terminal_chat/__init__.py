"""`make chat`: a chat in the terminal. A client of the public API like any other, it knows nothing of the server."""
