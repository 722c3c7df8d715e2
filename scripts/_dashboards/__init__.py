"""Grafana's dashboards as code; `scripts/dashboards` prints them, `collector-config/dashboards/` holds them.

- `promql` expressions over our instruments, which a misspelt name cannot get into
- `panels` the few kinds of panels that all of them are made of
- one file a dashboard, named as its JSON
"""
