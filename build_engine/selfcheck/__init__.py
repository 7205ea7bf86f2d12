"""The self check of a GPU host: what the build and the server rest on, tried with a tiny Mixtral in minutes."""
