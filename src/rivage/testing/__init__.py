"""Tests that ship with the package: the conformance battery and toy problems, for built-ins and plug-ins alike."""
