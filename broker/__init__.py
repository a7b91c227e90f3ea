"""The broker: keeps jobs and agents, decides who runs what, and makes it durable. Imports nothing by itself."""
