"""Dashboards of the mesh, as code: `python -m grafana.generate` writes the JSON that Grafana reads."""
