"""The Workers AI wire contract: routes, handlers, and how answers and errors look."""
