"""Measure artefacts beside their reference, judge them, and write the report.

data → evaluate (metrics, invariance, timing) → gate → report. Everything that runs a model
does so through the ``Runner`` protocol, which tests implement without a model.
"""
