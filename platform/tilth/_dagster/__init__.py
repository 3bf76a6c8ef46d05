"""The fence: what is private of Dagster, its libraries and Python. It is handed functions, and knows no policy."""
