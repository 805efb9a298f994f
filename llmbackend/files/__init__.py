"""Extracts text from files of many formats, in processes with limited memory and time."""
