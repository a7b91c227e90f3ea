"""Answers as files: CSV, Parquet, OpenMetrics text, and one HTML page that needs nothing else."""
