"""Data sets brought into the form that training reads, once."""
