"""Tests of the Open Inference Protocol, one module at a time."""
