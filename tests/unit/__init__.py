"""Tests of single modules, by package."""
