"""How much of the model's own speed arrives at a client, and what the serving around it costs.

Everything is measured in one run, each way once a round, on the same cores as the load
generator; what is reported are medians over the rounds. Linux only, like the embedded Triton.
"""
