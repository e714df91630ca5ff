"""The dashboard for Grafana, made with Grafana's own library: `script/make-dashboard`."""
