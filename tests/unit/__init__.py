"""Tests of single modules, and of few together."""
