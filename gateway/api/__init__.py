"""The Workers AI wire contract: routes, handlers, and the rendering of answers and errors."""
