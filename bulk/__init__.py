"""Files through the API: tables in, answers beside their rows out; knows no part of the server."""
