"""Customers: end users with limits of their own, as the Ringside contract has them. Who they are,
how they are named, and how their callers are told what went wrong.
"""
