"""Requests that no honest client sends, in tables: what goes over the wire, and what must come back.

Most get a refusal of the contract. Some are odd and valid in truth: those expect ``FINE``.
"""
