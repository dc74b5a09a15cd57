"""Counterfoil: moves records and documents between systems and keeps a counterfoil for every one."""

__version__ = "0.1.0"

__all__ = ["__version__"]
