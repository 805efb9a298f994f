"""Files of many formats into texts, by processes with little memory and time."""
