"""Modules generated from descriptors that other distributions carry without their Python module."""
