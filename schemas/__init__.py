"""The words: frozen records of everything that travels or is stored, with their bounds."""
