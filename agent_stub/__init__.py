"""The agent: runs jobs where the data is. Imports nothing by itself."""
